#!/bin/sh
# The first process of a virtual machine in user-mode Linux; see user_mode_linux.py. The machine's root is the host's file system, read
# only, under a layer in memory: whatever is written here, the host keeps as it was, but for the folder that is shared.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=linux
mount -t proc proc /proc
folder=$(sed -n 's/.*qkd_folder=\([^ ]*\).*/\1/p' /proc/cmdline)
modules=/usr/lib/uml/modules

insmod "$modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko"
mount -t tmpfs -o size=90% tmpfs /mnt
mkdir -p /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root || halt -f
mkdir -p old lib/modules
pivot_root . old

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
# What udev links elsewhere, and tools read secrets from.
ln -s /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${number%:*}" "/dev/${number#*:}"; done
# Sockets and locks of the host's services are none of ours.
for there in /dev/shm /run /var/log/openvswitch /etc/openvswitch; do
    mkdir -p "$there"
    mount -t tmpfs -o mode=1777 tmpfs "$there"
done
mkdir -p "$folder"
mount -t hostfs -o "$folder" folder "$folder"
mount --bind "/old$modules" /lib/modules
modprobe -a sch_netem sch_htb veth openvswitch bridge tun
ip link set lo up
hostname localhost

(
    until [ -e "$folder/terminate" ] && [ -s "$folder/pid" ]; do sleep 1; done
    kill -TERM "$(cat "$folder/pid")"
) &
# The kernel itself speaks on the first console, which goes to its log.
setsid -c sh "$folder/script" </dev/tty1 >/dev/tty1 2>&1
echo $? >"$folder/status.tmp"
mv "$folder/status.tmp" "$folder/status"
sync
halt -f
