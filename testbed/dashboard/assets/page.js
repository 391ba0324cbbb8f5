// What the browser does alone: zoom and pan, keys on their way, dark and presentation mode, saving as SVG.
"use strict";
const qkd = (() => {
  const WIDTH = 1200, HEIGHT = 660, MOST = 12;
  const LOW = 560, LEGIBLE = 0.95; // pixels: of a window; of a unit of the map in one that is lower
  const SVG = "http://www.w3.org/2000/svg";
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let view = [0, 0, WIDTH, HEIGHT]; // the part of the map that is shown: left, top, width, height

  const map = () => document.getElementById("map");
  const effects = () => document.getElementById("effects");

  // Show that part, as much of it as lies on the map.
  function show([x, y, width]) {
    width = Math.min(WIDTH, Math.max(WIDTH / MOST, width));
    const height = width * HEIGHT / WIDTH;
    view = [Math.min(WIDTH - width, Math.max(0, x)), Math.min(HEIGHT - height, Math.max(0, y)), width, height];
    map()?.setAttribute("viewBox", view.join(" "));
  }

  // Make all larger by that factor, and leave in place what is at (x, y); in the middle if nobody says where.
  function zoom(factor, at) {
    const [x, y] = at ?? [view[0] + view[2] / 2, view[1] + view[3] / 2];
    const width = Math.min(WIDTH, Math.max(WIDTH / MOST, view[2] / factor));
    const share = width / view[2];
    show([x - (x - view[0]) * share, y - (y - view[1]) * share, width]);
  }

  // All of the map; in a low window as much of it as has room in letters that can be read. A window is as low as that
  // where the page was enlarged: then the letters of the map are to grow, too, and not to be fitted into fewer pixels.
  function fit() {
    const { width, height } = map().getBoundingClientRect();
    const whole = Math.min(width / WIDTH, height / HEIGHT);
    const low = innerHeight < LOW && !document.body.classList.contains("present");
    show([0, 0, WIDTH]);
    if (!low) return;
    // In the middle may be nothing: many networks are rings.
    const mark = map().querySelector(".selected :is(.box, .target)") ?? map().querySelector(".node .box");
    const box = mark.getBoundingClientRect();
    const [x, y] = place({ clientX: (box.left + box.right) / 2, clientY: (box.top + box.bottom) / 2 });
    const shown = Math.min(WIDTH, WIDTH * whole / LEGIBLE);
    show([x - shown / 2, y - shown * HEIGHT / WIDTH / 2, shown]);
  }

  const pan = (dx, dy) => show([view[0] + dx * view[2], view[1] + dy * view[3], view[2]]);

  // Where on the map a pointer is.
  function place(event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(map().getScreenCTM().inverse());
    return [at.x, at.y];
  }

  // One key along each way, a list of points, past datacenters below their boxes; a way of one point is a key that was
  // there already, and puts a frame about the box.
  function travel(ways) {
    const layer = effects();
    if (!layer || document.hidden) return;
    for (const way of ways) {
      const kind = way.length === 1 ? "pooled" : still.matches ? "way" : "key";
      const shape = document.createElementNS(SVG, { pooled: "rect", way: "polyline", key: "circle" }[kind]);
      shape.setAttribute("class", kind);
      layer.append(shape);
      if (kind === "way") {
        shape.setAttribute("points", way.join(" "));
        setTimeout(() => shape.remove(), 1500);
      } else if (kind === "pooled") {
        const { width, height } = map().querySelector(".node .box").getBBox();
        const scale = map().style.getPropertyValue("--s"), [[x, y]] = way;
        const place = { x: x - width * scale / 2 - 9, y: y - height * scale / 2 - 9, rx: 14,
          width: width * scale + 18, height: height * scale + 18 };
        for (const [name, value] of Object.entries(place)) shape.setAttribute(name, value);
        setTimeout(() => shape.remove(), 700);
      } else {
        const frames = way.map(([x, y]) => ({ transform: `translate(${x}px, ${y}px)` }));
        shape.setAttribute("r", 9);
        shape.animate(frames, { duration: 450 * (way.length - 1), easing: "linear" }).onfinish = () => shape.remove();
      }
    }
  }

  // Those properties of how an element looks that a picture of it needs.
  const LOOKS = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "font-family", "font-size",
    "font-weight", "text-anchor", "visibility", "display", "opacity"];

  // Save an SVG as a file that needs no style sheet.
  function save(svg, name, box) {
    if (!svg) return;
    const copy = svg.cloneNode(true);
    const [from, to] = [svg, copy].map((root) => [root, ...root.querySelectorAll("*")]);
    from.forEach((element, i) => {
      const look = getComputedStyle(element);
      to[i].setAttribute("style", LOOKS.map((property) => `${property}:${look.getPropertyValue(property)}`).join(";"));
      for (const attribute of ["tabindex", "role", "class"]) to[i].removeAttribute(attribute);
    });
    copy.querySelector("#effects")?.replaceChildren();
    copy.setAttribute("xmlns", SVG);
    if (box) copy.setAttribute("viewBox", box);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function dark(on) {
    Quasar.Dark.set(on);
    try { localStorage.setItem("qkd-dark", on ? "1" : "0"); } catch { /* not where the browser forbids it */ }
  }

  function present(on) {
    const before = document.body.classList.contains("present");
    if (document.body.classList.toggle("present", on) !== before && innerHeight < LOW) fit();
  }

  const steps = {
    "zoom-in": () => zoom(1.5),
    "zoom-out": () => zoom(1 / 1.5),
    "zoom-all": () => show([0, 0, WIDTH]),
    "save-map": () => save(map(), "map.svg", `0 0 ${WIDTH} ${HEIGHT}`),
    "save-curves": () => save(document.querySelector(".chart.curves svg"), "curves.svg"),
    "dark": () => dark(!document.body.classList.contains("body--dark")),
    "present": () => present(),
  };
  const keys = {
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), "0": () => show([0, 0, WIDTH]),
    ArrowLeft: () => pan(-0.2, 0), ArrowRight: () => pan(0.2, 0), ArrowUp: () => pan(0, -0.2), ArrowDown: () => pan(0, 0.2),
  };

  document.addEventListener("click", (event) => steps[event.target.closest?.("[data-do]")?.dataset.do]?.());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") present(false);
    // With Ctrl these are the browser's, and in fields and lists they are theirs.
    const onMap = document.activeElement?.closest?.("#map, .panel.map .tools");
    if (onMap && keys[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  // Who goes from one to the next by Tab sees where he is, whatever part of the map is shown.
  document.addEventListener("focusin", ({ target }) => {
    const mark = target.closest?.("#map") && target.matches(":focus-visible") && target.querySelector(".box, .target");
    if (!mark) return;
    const { left, right, top, bottom } = mark.getBoundingClientRect();
    const [x, y] = place({ clientX: (left + right) / 2, clientY: (top + bottom) / 2 });
    const far = Math.max(Math.abs(x - view[0] - view[2] / 2) / view[2], Math.abs(y - view[1] - view[3] / 2) / view[3]);
    if (far > 0.35) show([x - view[2] / 2, y - view[3] / 2, view[2]]);
  });

  let wasLow = innerHeight < LOW;
  addEventListener("resize", () => {
    const isLow = innerHeight < LOW;
    if ((isLow || wasLow) && map()) fit();
    wasLow = isLow;
  });

  document.addEventListener("wheel", (event) => {
    const presents = document.body.classList.contains("present");
    // The page is scrolled by the wheel alone.
    if (!event.target.closest?.("#map") || !(event.ctrlKey || presents)) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, place(event));
  }, { passive: false });

  let held = null; // where on the map a pointer went down
  let moved = false;
  document.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && event.target.closest?.("#map") && view[2] < WIDTH) [held, moved] = [place(event), false];
  });
  document.addEventListener("pointermove", (event) => {
    if (!held) return;
    const [x, y] = place(event);
    if (moved || Math.hypot(x - held[0], y - held[1]) > view[2] / 200) {
      moved = true;
      show([view[0] + held[0] - x, view[1] + held[1] - y, view[2]]);
    }
  });
  document.addEventListener("pointerup", () => { held = null; });
  // Who pans does not select what lies under the pointer.
  document.addEventListener("click", (event) => {
    if (moved && event.target.closest?.("#map")) event.stopPropagation();
    moved = false;
  }, { capture: true });

  // What is typed or pressed before the connection stands waits in the library for it, each letter by a clock of its own:
  // they may come to the server in another order, and it would take the last but one for all that was written.
  document.body.inert = true;
  const starting = setInterval(() => {
    if (!window.did_handshake || !map()) return;
    clearInterval(starting);
    document.body.inert = false;
    fit();
  }, 50);

  // A run that has ended, or a machine that is too busy: what is on the page is old, and says so.
  let silent = 0;
  setInterval(() => {
    silent = window.socket && !window.socket.connected ? silent + 1 : 0;
    const lost = silent > 2;
    if (lost === document.body.classList.contains("lost")) return;
    document.body.classList.toggle("lost", lost);
    const words = document.querySelector("p.lost");
    const since = new Date(Date.now() - 1000 * silent).toLocaleTimeString("en-GB");
    if (words) words.textContent = lost ? `✕ The run has ended or does not answer. This is how it was at ${since}.` : "";
    if (lost) document.querySelector("p.said")?.replaceChildren();
  }, 1000);

  addEventListener("load", () => {
    let kept = null;
    try { kept = localStorage.getItem("qkd-dark"); } catch { /* as above */ }
    const wanted = kept === null ? matchMedia("(prefers-color-scheme: dark)").matches : kept === "1";
    if (wanted) setTimeout(() => dark(true));
  });

  return { travel, zoom, pan, show, view: () => view };
})();
