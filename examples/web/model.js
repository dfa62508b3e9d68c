// A slice folder on the server, and onnxruntime-web: from decoded pixels to ranked labels.

import { channelsFirst, normalise, readSlice, toPixels } from "./preprocess.js";

/** The files of a slice folder that this page can run, in the order they are looked for. */
const STEMS = ["model", "model-pixels", "model-nchw", "model-nchw-pixels"];
const FILES = [...STEMS, ...STEMS.map((stem) => stem.replace("model", "model-int8"))].map((stem) => `${stem}.onnx`);
const MAKE = `Make it with:
bignas-zoo get --budget 130MFLOPs --output examples/web/model
bignas-zoo export examples/web/model --format onnx --precision int8`;

/**
 * Load a slice folder.
 *
 * @param {string} folder address of the folder, ending in "/"
 * @param {string} [file] name of the ONNX file; default: the first of FILES that is there
 * @returns {Promise<{slice: object, classify: function}>} what slice.json says, and what classifies ImageData
 * @throws {Error} with a message for the user
 */
export async function loadModel(folder, file) {
  const slice = await loadSlice(`${folder}slice.json`);
  const [name, bytes] = await loadFirst(folder, file ? [file] : FILES);
  const { InferenceSession, Tensor, env } = await loadRuntime();
  env.wasm.numThreads = 1; // more need a page that is cross-origin isolated
  const session = await InferenceSession.create(bytes, { executionProviders: ["wasm"] }).catch((error) => {
    throw new Error(`${folder}${name} is no ONNX file that this page can run (${error.message}).`);
  });
  const image = session.inputMetadata.find((value) => value.name === "image");
  const planar = image?.shape[1] === 3;
  if (image?.shape[2] !== slice.resolution) {
    throw new Error(`${folder}${name} does not take ${slice.resolution} px images: it belongs to another slice.`);
  }
  const run = (values) => session.run({ image: new Tensor("float32", values, [1, ...image.shape.slice(1)]) });
  await run(new Float32Array(3 * slice.resolution ** 2)); // the first run is slower than the others
  const takesPixels = name.includes("-pixels"); // bignas-zoo says so in the file's name

  /** Classify ImageData: labels with scores, best first; the input as pixels; milliseconds of both steps. */
  async function classify(imageData) {
    const begin = performance.now();
    const pixels = toPixels(imageData, slice);
    let values = takesPixels ? pixels : normalise(pixels, slice);
    if (planar) values = channelsFirst(values);
    const ready = performance.now();
    const { scores } = await run(values);
    const done = performance.now();
    const ranked = slice.labels
      .map((label, i) => ({ label, score: scores.data[i] }))
      .sort((a, b) => b.score - a.score);
    return { ranked, pixels, prepareMs: ready - begin, networkMs: done - ready };
  }

  return { slice, file: name, classify };
}

async function loadSlice(address) {
  const answer = await get(address);
  if (!answer) throw new Error(`There is no model here yet: ${address} was not found. ${MAKE}`);
  try {
    return readSlice(await answer.json());
  } catch (error) {
    throw new Error(`${address} cannot be used: ${error.message}. ${MAKE}`);
  }
}

async function loadFirst(folder, names) {
  for (const name of names) {
    const answer = await get(folder + name);
    if (answer) return [name, await answer.arrayBuffer()];
  }
  throw new Error(`There is no ${names[0]} in ${folder}. ${MAKE}`);
}

/** Fetch, or return null if there is no such file. */
async function get(address) {
  const answer = await fetch(address).catch(() => {
    throw new Error(`${address} cannot be reached. Is the server still running?`);
  });
  return answer.ok ? answer : null;
}

async function loadRuntime() {
  return import("onnxruntime-web").catch(() => {
    throw new Error("onnxruntime-web is missing. Run `npm install` in examples/web, then reload this page.");
  });
}
