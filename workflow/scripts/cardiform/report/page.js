"use strict";
// Charts are drawn when they come into view; a viewer redraws when one of its controls changes.
const drawn = JSON.parse(document.getElementById("drawn").textContent);
const settings = { responsive: true, displaylogo: false };

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

const light = { ambient: 0.45, diffuse: 0.75, specular: 0.15, roughness: 0.6, fresnel: 0.1 };

function surface(mesh, more) {
  return {
    type: "mesh3d", x: mesh.x, y: mesh.y, z: mesh.z, i: mesh.i, j: mesh.j, k: mesh.k,
    lighting: light, lightposition: { x: 1000, y: -2000, z: 3000 }, flatshading: false, ...more,
  };
}

function traces(viewer, heart, way, shown) {
  const result = [];
  let bar = true;
  for (const mesh of viewer.hearts[heart]) {
    const [, title, color] = viewer.classes.find(([name]) => name === mesh.name);
    if (!shown.has(mesh.name)) continue;
    const plain = { color, name: title, hovertemplate: `${title}<extra></extra>` };
    if (way === "truth" && mesh.truth) result.push(surface(mesh.truth, plain));
    if ((way === "model" || way === "both") && mesh.model) result.push(surface(mesh.model, plain));
    if (way === "both" && mesh.truth) {
      result.push(surface(mesh.truth, { ...plain, opacity: 0.25 }));
    }
    if (way === "error" && mesh.model && mesh.error) {
      result.push(surface(mesh.model, {
        name: title, intensity: mesh.error, intensitymode: "vertex", colorscale: "Cividis",
        cmin: 0, cmax: viewer.largest_mm, showscale: bar,
        colorbar: { title: { text: "mm" }, thickness: 14 },
        hovertemplate: `${title}: %{intensity:.2f} mm<extra></extra>`,
      }));
      bar = false;
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
  const moved = {
    x: far * Math.cos(height) * Math.cos(around),
    y: far * Math.cos(height) * Math.sin(around),
    z: far * Math.sin(height),
  };
  Plotly.relayout(element, { "scene.camera": { eye: moved, up, center } });
}

const KEYS = {
  ArrowLeft: [-0.15, 0, 1], ArrowRight: [0.15, 0, 1], ArrowUp: [0, 0.15, 1],
  ArrowDown: [0, -0.15, 1], "+": [0, 0, 0.9], "-": [0, 0, 1.1],
};

for (const figure of document.querySelectorAll(".viewer")) {
  const viewer = drawn[figure.dataset.section].viewers[figure.dataset.viewer];
  const scene = figure.querySelector(".scene");
  const hidden = { visible: false };
  // from the front, feet below: RAS, so the camera stands at high A
  const layout = {
    margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, uirevision: "kept",
    scene: {
      aspectmode: "data", xaxis: hidden, yaxis: hidden, zaxis: hidden,
      camera: { eye: { x: -0.4, y: 1.7, z: 0.3 }, up: { x: 0, y: 0, z: 1 }, center: { x: 0, y: 0, z: 0 } },
    },
  };
  const { eye } = layout.scene.camera;
  const wider = Math.max(1, (0.9 * scene.clientHeight) / scene.clientWidth); // on a phone: from afar
  for (const axis of "xyz") eye[axis] *= wider;
  const draw = () => {
    const heart = figure.querySelector(".heart").value;
    const way = figure.querySelector(".ways input:checked").value;
    const shown = new Set(
      [...figure.querySelectorAll(".classes input:checked")].map((input) => input.value),
    );
    return Plotly.react(scene, traces(viewer, heart, way, shown), scene.layout || layout, settings);
  };
  whenSeen(figure, draw);
  figure.addEventListener("change", draw);
  scene.addEventListener("keydown", (event) => {
    const move = KEYS[event.key];
    if (move && scene.layout) {
      event.preventDefault();
      turn(scene, ...move);
    }
  });
}
