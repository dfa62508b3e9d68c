// The page: a file, a drop, a paste or the sample goes in; labels, scores and times come out.

import { loadModel } from "./model.js";

const SHOWN = 5;
/** Pillow's limit, and so bignas-zoo's: beyond it a small file can fill the memory. */
const MOST_PIXELS = 89_478_485;
const $ = (id) => document.getElementById(id);
const address = new URLSearchParams(location.search);
const percent = (score) => `${(100 * score).toFixed(1)} %`;

let model = null;
let newest = 0; // of several images chosen quickly, the last one is shown

start();

async function start() {
  try {
    const folder = (address.get("model") ?? "model").replace(/\/*$/, "/");
    model = await loadModel(folder, address.get("file"));
  } catch (error) {
    return fail(error);
  }
  describe(model.slice, model.file);
  say("Ready.");
  for (const id of ["file", "sample"]) $(id).disabled = false;
  $("file").addEventListener("change", () => choose($("file").files[0]));
  $("sample").addEventListener("click", chooseSample);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
  for (const end of ["dragleave", "drop"]) {
    document.addEventListener(end, () => $("drop").classList.remove("over"));
  }
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    choose(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
}

function describe(slice, file) {
  $("name").textContent = slice.name;
  const figures = [
    ["Input", `${slice.resolution} × ${slice.resolution} px`],
    ["Work", slice.macs && `${(slice.macs / 1e6).toFixed(2)} M multiply-adds`],
    ["Parameters", slice.parameters?.toLocaleString("en")],
    ["Top-1", slice.top1 && `${slice.top1.toFixed(2)} % on ${slice.top1_source}`],
    ["File", file],
  ];
  $("figures").replaceChildren(
    ...figures.filter(([, value]) => value).map(([term, value]) => {
      const row = element("div");
      row.append(element("dt", term), element("dd", value));
      return row;
    }),
  );
  $("classes").textContent = `It knows ${slice.labels.length.toLocaleString("en")} classes (${slice.labels.slice(0, 20).join(", ")}${
    slice.labels.length > 20 ? ", …" : ""
  }) and nothing else: anything else still gets one of these names.`;
}

async function chooseSample() {
  const answer = await fetch("sample.jpg").catch(() => null);
  if (!answer?.ok) return fail(new Error("sample.jpg cannot be loaded. Is the server still running?"));
  return choose(new File([await answer.blob()], "sample.jpg"));
}

async function choose(file) {
  if (!file) return; // dropped or pasted text, or a cancelled dialogue
  const mine = ++newest;
  say(`Classifying ${file.name} …`);
  try {
    const imageData = await decode(file);
    const result = await model.classify(imageData);
    if (mine === newest) show(file, imageData, result);
  } catch (error) {
    if (mine === newest) fail(error);
  }
  $("file").value = ""; // so that the same file can be chosen again
}

/** Decode an image file to RGBA, without the colour conversion that Pillow does not do either. */
async function decode(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => {
    throw new Error(`${file.name} is not an image this browser can read. Choose a PNG, JPEG, WebP or BMP file.`);
  });
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) {
    throw new Error(`${file.name} has ${width} × ${height} pixels, more than this page takes. Choose a smaller one.`);
  }
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

function show(file, imageData, { ranked, pixels, prepareMs, networkMs }) {
  const photo = $("photo");
  photo.width = imageData.width;
  photo.height = imageData.height;
  photo.getContext("2d").putImageData(imageData, 0, 0);
  photo.setAttribute("aria-label", `Your image: ${file.name}`);
  showInput(pixels, model.slice.resolution);
  const rows = ranked.slice(0, SHOWN).map(({ label, score }) => {
    const row = element("li");
    const bar = element("span");
    bar.className = "bar";
    bar.style.setProperty("--score", score);
    bar.setAttribute("aria-hidden", "true");
    row.append(element("span", label), element("span", percent(score)), bar);
    return row;
  });
  $("scores").replaceChildren(...rows);
  const [network, prepare] = [networkMs, prepareMs].map((time) => time.toFixed(1));
  $("times").textContent = `${network} ms in the network, ${prepare} ms to prepare the image.`;
  $("answer").textContent = ranked[0].label;
  document.body.dataset.state = "result";
  say(`${file.name}: ${ranked[0].label}, ${percent(ranked[0].score)}.`);
  document.dispatchEvent(new CustomEvent("classified", { detail: { name: file.name, ranked } }));
}

/** Draw what the network gets. */
function showInput(pixels, side) {
  const image = new ImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    image.data.set([...pixels.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  }
  const canvas = $("input");
  canvas.width = canvas.height = side;
  canvas.getContext("2d").putImageData(image, 0, 0);
  $("input-size").textContent = `${side} × ${side} px`;
}

function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function say(text) {
  $("error").hidden = true;
  $("status").textContent = text;
}

function fail(error) {
  $("status").textContent = "";
  $("error").hidden = false;
  $("error").textContent = error.message;
}
