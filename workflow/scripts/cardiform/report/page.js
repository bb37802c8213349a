"use strict";
// Charts are drawn when they come into view; a viewer redraws when one of its controls changes.
const drawn = JSON.parse(document.getElementById("drawn").textContent);
const settings = { responsive: true, displaylogo: false };
const KINDS = { f4: Float32Array, i2: Int16Array, u2: Uint16Array, u4: Uint32Array };

function whenSeen(element, draw) {
  new IntersectionObserver((entries, observer) => {
    if (entries.some((entry) => entry.isIntersecting)) {
      observer.disconnect();
      draw();
    }
  }, { rootMargin: "300px" }).observe(element);
}

for (const element of document.querySelectorAll(".chart")) {
  const { figure } = drawn[element.dataset.section].charts[element.dataset.chart];
  whenSeen(element, () => Plotly.newPlot(element, figure.data, figure.layout, settings));
}

// The numbers of a stored array; it is little-endian, as browsers are.
const known = new WeakMap();
function numbers(array) {
  if (!known.has(array)) {
    const bytes = Uint8Array.from(atob(array.bdata), (letter) => letter.charCodeAt(0));
    known.set(array, new KINDS[array.dtype](bytes.buffer));
  }
  return known.get(array);
}

const light = { ambient: 0.45, diffuse: 0.75, specular: 0.15, roughness: 0.6, fresnel: 0.1 };

function surface(mesh, more) {
  return {
    type: "mesh3d", x: mesh.x, y: mesh.y, z: mesh.z, i: mesh.i, j: mesh.j, k: mesh.k,
    lighting: light, lightposition: { x: 1000, y: -2000, z: 3000 }, flatshading: false, ...more,
  };
}

function plain(figure, mesh) {
  const [, title, color] = figure.classes.find(([name]) => name === mesh.name);
  return { color, name: title, hovertemplate: `${title}<extra></extra>` };
}

// Colours along one scale for all structures, with one bar beside the first of them.
function painted(figure, mesh, intensity, bar) {
  const { name } = plain(figure, mesh);
  return {
    name, intensity, intensitymode: "vertex", colorscale: "Cividis",
    cmin: 0, cmax: figure.largest_mm, showscale: bar,
    colorbar: { title: { text: "mm" }, thickness: 14 },
    hovertemplate: `${name}: %{intensity:.2f} mm<extra></extra>`,
  };
}

// On the right of the picture is the patient's left: less x.
function moved(mesh, viewer) {
  return { ...mesh, x: numbers(mesh.x).map((x) => x - viewer.apart_mm) };
}

function traces(viewer, heart, way, shown) {
  const result = [];
  const add = (mesh, more) => mesh && result.push(surface(mesh, more));
  for (const mesh of viewer.hearts[heart]) {
    if (!shown.has(mesh.name)) continue;
    const look = plain(viewer, mesh);
    if (way === "error") {
      if (mesh.error) add(mesh.model, painted(viewer, mesh, mesh.error, !result.length));
    } else if (way === "both") {
      add(mesh.model, look);
      add(mesh.truth, { ...look, opacity: 0.25 });
      add(mesh.given, { ...look, color: "#0072B2", opacity: 0.3 });
    } else if (way === "beside") {
      add(mesh.model, look);
      add(mesh.truth && moved(mesh.truth, viewer), look);
    } else {
      add(mesh[way], look);
    }
  }
  return result;
}

function turn(element, sideways, upwards, nearer) {
  const { eye, up, center } = element.layout.scene.camera;
  const size = Math.hypot(eye.x, eye.y, eye.z);
  const around = Math.atan2(eye.y, eye.x) + sideways;
  const limit = Math.PI / 2 - 0.05;
  const height = Math.max(-limit, Math.min(limit, Math.asin(eye.z / size) + upwards));
  const far = size * nearer;
  const to = {
    x: far * Math.cos(height) * Math.cos(around),
    y: far * Math.cos(height) * Math.sin(around),
    z: far * Math.sin(height),
  };
  return Plotly.relayout(element, { "scene.camera": { eye: to, up, center } });
}

const KEYS = {
  ArrowLeft: [-0.15, 0, 1], ArrowRight: [0.15, 0, 1], ArrowUp: [0, 0.15, 1],
  ArrowDown: [0, -0.15, 1], "+": [0, 0, 0.9], "-": [0, 0, 1.1],
};

// Draw what ``content`` makes of the controls of a figure, and again when one of them changes.
// ``reach``: what gives the least and the largest place along each axis, where the view keeps them.
// ``broad``: of what is shown, width to height.
function stage(figure, content, { reach = () => undefined, nearer = 1, broad = 1 }) {
  const scene = figure.querySelector(".scene");
  const hidden = { visible: false };
  // from the front, feet below: RAS, so the camera stands at high A
  const layout = {
    margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, uirevision: "kept",
    scene: {
      aspectmode: "data", xaxis: { ...hidden }, yaxis: { ...hidden }, zaxis: { ...hidden },
      camera: { eye: { x: -0.4, y: 1.7, z: 0.3 }, up: { x: 0, y: 0, z: 1 }, center: { x: 0, y: 0, z: 0 } },
    },
  };
  const { eye } = layout.scene.camera;
  const wider = nearer * Math.max(1, (0.9 * broad * scene.clientHeight) / scene.clientWidth); // on a phone: from afar
  for (const axis of "xyz") eye[axis] *= wider;
  let waiting = false;
  let last = Promise.resolve();
  // Plotly fails where a picture is asked for before the one before it is drawn.
  const queue = (work) => {
    last = last.then(work, (error) => { console.error(error); return work(); });
  };
  const draw = () => {
    waiting = false;
    const shown = new Set(
      [...figure.querySelectorAll(".classes input:checked")].map((input) => input.value),
    );
    const way = figure.querySelector(".ways input:checked").value;
    const now = scene.layout || layout;
    for (const [axis, range] of Object.entries(reach() || {})) {
      Object.assign(now.scene[`${axis}axis`], { range, autorange: false });
    }
    return Plotly.react(scene, content(way, shown), now, settings);
  };
  const soon = () => { // a slider that moves asks more often than a screen shows
    if (!waiting) requestAnimationFrame(() => queue(draw));
    waiting = true;
  };
  whenSeen(figure, () => queue(draw));
  figure.addEventListener("change", soon);
  figure.addEventListener("input", soon);
  scene.addEventListener("keydown", (event) => {
    const move = KEYS[event.key];
    if (move && scene.layout) {
      event.preventDefault();
      queue(() => turn(scene, ...move));
    }
  });
  return soon;
}

for (const figure of document.querySelectorAll(".viewer")) {
  const viewer = drawn[figure.dataset.section].viewers[figure.dataset.viewer];
  const heart = figure.querySelector(".heart");
  const reach = () => viewer.reach[heart.value];
  const broad = viewer.apart_mm ? 1.6 : 1;
  stage(figure, (way, shown) => traces(viewer, heart.value, way, shown), { reach, broad });
}

// A structure of the mean heart, moved by ``scores`` standard deviations along the modes.
function moulded(part, steps, scores) {
  const mean = numbers(part.mean);
  const components = numbers(part.components);
  const count = mean.length / 3;
  const result = { x: new Float32Array(count), y: new Float32Array(count), z: new Float32Array(count) };
  const away = new Float32Array(count);
  for (let vertex = 0; vertex < count; vertex++) {
    let square = 0;
    ["x", "y", "z"].forEach((axis, place) => {
      const at = 3 * vertex + place;
      let change = 0;
      scores.forEach((score, mode) => { change += score * components[mode * mean.length + at]; });
      change *= steps.components;
      square += change * change;
      result[axis][vertex] = mean[at] * steps.mean + change;
    });
    away[vertex] = Math.sqrt(square);
  }
  return { ...result, i: part.i, j: part.j, k: part.k, away };
}

for (const figure of document.querySelectorAll(".modes")) {
  const modes = drawn[figure.dataset.section].modes[figure.dataset.modes];
  const sliders = [...figure.querySelectorAll(".sliders input")];
  const redraw = stage(figure, (way, shown) => {
    const scores = sliders.map((slider) => Number(slider.value));
    const parts = modes.parts.filter((part) => shown.has(part.name));
    return parts.map((part, number) => {
      const mesh = moulded(part, modes.steps, scores);
      const bar = number === 0;
      return surface(mesh, way === "moved" ? painted(modes, part, mesh.away, bar) : plain(modes, part));
    });
  }, { reach: () => modes.reach, nearer: modes.nearer });
  const say = () => sliders.forEach((slider) => {
    const text = Number(slider.value).toFixed(1);
    slider.parentElement.querySelector("output").textContent = text;
    slider.setAttribute("aria-valuetext", `${text} standard deviations`);
  });
  say(); // some browsers keep the sliders of a page that is loaded again
  figure.addEventListener("input", say);
  figure.querySelector("button").addEventListener("click", () => {
    for (const slider of sliders) slider.value = 0;
    say();
    redraw();
  });
}
