// From decoded pixels to what a slice takes: the same numbers as bignas-zoo's preprocess.py.
//
// A canvas is no help here: browsers do not say how they shrink images, and do not agree. So both steps are done in
// JavaScript, bicubically with antialiasing: the shorter side is brought to `crop_size` and the centre cut square (or,
// with a `crop_fraction`, the central square of that part of the shorter side is brought to `crop_size`), in
// whole numbers and across before down, as Pillow does it (Pillow 13 takes tall images the other way round, which
// rounds differently); then the square is resized to the network's resolution, in float. There is no DOM in this
// file, so that Node can run it too.

/** Read what slice.json says of the input and the output. Throws an Error in words if it is not a slice's. */
export function readSlice(json) {
  const { mean, std, crop_size: cropSize, crop_fraction: cropFraction = 1 } = json?.preprocess ?? {};
  const { resolution, class_names: labels } = json ?? {};
  const three = (v) => Array.isArray(v) && v.length === 3 && v.every(Number.isFinite);
  const side = (n) => Number.isInteger(n) && n > 0;
  if (!three(mean) || !three(std) || Math.min(...std) <= 0 || !side(cropSize) || !side(resolution) || !labels?.length) {
    throw new Error("it is not a slice's description");
  }
  if (!(cropFraction > 0 && cropFraction <= 1)) {
    throw new Error("it is not a slice's description");
  }
  return { ...json, mean, std, cropSize, cropFraction, resolution, labels };
}

/**
 * Bring an image to a slice's input size.
 *
 * @param {{width: number, height: number, data: Uint8ClampedArray}} image decoded RGBA pixels, as in ImageData
 * @param {{cropSize: number, cropFraction: number, resolution: number}} slice from readSlice
 * @returns {Float32Array} [resolution, resolution, 3], red, green, blue, some 0 to 255 (a bicubic filter overshoots)
 */
export function toPixels(image, { cropSize, cropFraction = 1, resolution }) {
  return resizeFloat(centreSquare(image, cropSize, cropFraction), cropSize, resolution);
}

/** Normalise pixels channel by channel: (pixel - mean) / std. */
export function normalise(pixels, { mean, std }) {
  return pixels.map((value, i) => (value - mean[i % 3]) / std[i % 3]);
}

/** Reorder [size, size, 3] to [3, size, size]. */
export function channelsFirst(pixels) {
  const plane = pixels.length / 3;
  return pixels.map((_, i) => pixels[(i % plane) * 3 + Math.floor(i / plane)]);
}

/**
 * Shrink or enlarge until the shorter side is `side`, and cut the centre: [side, side, 3], whole numbers.
 * With a fraction below 1, the central square of that part of the shorter side becomes the result.
 */
export function centreSquare({ width, height, data }, side, fraction = 1) {
  const scale = side / Math.min(width, height);
  const [newWidth, newHeight] = [width, height].map((n) => Math.max(side, roundHalfEven(n * scale)));
  const part = fraction * Math.min(width, height);
  // Only the columns and rows that stay are computed.
  const axis = (from, to) =>
    fraction < 1
      ? filters(from, part / side, (from - part) / 2, side)
      : filters(from, from / to, ((to - side) >> 1) * (from / to), side);
  const columns = axis(width, newWidth);
  const rows = axis(height, newHeight);
  const narrow = new Uint8ClampedArray(height * side * 3); // whole numbers between the passes as well; it clamps
  for (let y = 0; y < height; y++) {
    columns.forEach(({ start, weights }, x) => {
      let [r, g, b] = [0, 0, 0];
      for (let k = 0, i = (y * width + start) * 4; k < weights.length; k++, i += 4) {
        r += weights[k] * data[i];
        g += weights[k] * data[i + 1];
        b += weights[k] * data[i + 2];
      }
      const at = (y * side + x) * 3;
      narrow[at] = Math.floor(r + 0.5);
      narrow[at + 1] = Math.floor(g + 0.5);
      narrow[at + 2] = Math.floor(b + 0.5);
    });
  }
  return along(narrow, rows, side * 3, new Uint8ClampedArray(side * side * 3), (sum) => Math.floor(sum + 0.5));
}

/** Resize a square [from, from, 3] to [to, to, 3] in float; the identity if nothing changes. */
export function resizeFloat(square, from, to) {
  if (from === to) return Float32Array.from(square);
  const weights = filters(from, from / to, 0, to);
  const narrow = new Float32Array(from * to * 3);
  for (let y = 0; y < from; y++) {
    const row = square.subarray(y * from * 3, (y + 1) * from * 3);
    along(row, weights, 3, narrow.subarray(y * to * 3, (y + 1) * to * 3));
  }
  return along(narrow, weights, to * 3, new Float32Array(to * to * 3));
}

/** Filter along the first axis of [length, stride]; `finish` is done to each sum. */
function along(from, filtersOfAxis, stride, into, finish = (sum) => sum) {
  filtersOfAxis.forEach(({ start, weights }, n) => {
    for (let j = 0; j < stride; j++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * from[(start + k) * stride + j];
      into[n * stride + j] = finish(sum);
    }
  });
  return into;
}

/** The weights of `count` output samples, `step` of `from` input samples apart, that begin at `offset`. */
function filters(from, step, offset, count) {
  const stretch = Math.max(step, 1); // antialiasing: a filter as wide as an output sample
  return Array.from({ length: count }, (_, n) => {
    const centre = offset + (n + 0.5) * step;
    const start = Math.max(0, Math.floor(centre - 2 * stretch + 0.5));
    const end = Math.min(from, Math.floor(centre + 2 * stretch + 0.5));
    const raw = Array.from({ length: end - start }, (_, k) => cubic((start + k + 0.5 - centre) / stretch));
    const sum = raw.reduce((a, b) => a + b, 0);
    return { start, weights: Float64Array.from(raw, (w) => w / sum) };
  });
}

/** Keys' cubic convolution with a = -1/2. */
function cubic(t) {
  const x = Math.abs(t);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/** Python's round: halves go to the even neighbour. */
function roundHalfEven(x) {
  const down = Math.floor(x);
  if (x - down !== 0.5) return Math.round(x);
  return down % 2 ? down + 1 : down;
}
