/* Lets user-mode Linux set the registers of its processes on processors with more of them than it knows.

   A processor's register state (its xstate) has grown with AVX, AVX-512 and AMX. User-mode Linux up to version 6.1 reads
   and sets as much of it as it had room for when it was written; since AMX there is more, and the host's ptrace refuses
   to set less than the whole: "ptrace set fp regs failed, errno = 14". The state that user-mode Linux knows is the
   beginning of the whole, in the same layout. So this library, put before libc by LD_PRELOAD, reads the whole, replaces
   its beginning, and sets the whole. All else is passed on. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

static char whole[64 << 10] __attribute__((aligned(64))); /* user-mode Linux sets registers in one thread alone */

long ptrace(enum __ptrace_request request, ...) {
    static long (*next)(enum __ptrace_request, pid_t, void *, void *);
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *), *data = va_arg(arguments, void *);
    va_end(arguments);

    if (!next) next = (long (*)(enum __ptrace_request, pid_t, void *, void *))dlsym(RTLD_NEXT, "ptrace");
    if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE) {
        struct iovec *known = data, all = {whole, sizeof whole};
        if (next(PTRACE_GETREGSET, pid, address, &all) < 0) return -1;
        if (known->iov_len < all.iov_len) {
            memcpy(whole, known->iov_base, known->iov_len);
            return next(request, pid, address, &all);
        }
    }
    return next(request, pid, address, data);
}
