// The page in a real browser: `npm test`. Needs Chromium (CHROMIUM names it; default /usr/bin/chromium).
//
//     node test.mjs [--model FOLDER] [--file NAME] [--images FOLDER] [--screenshots FOLDER]
//
// Chooses every image of a folder (default: the sample), tries what must fail, and prints what the page said as one
// JSON object. The exit code is 1 if the page did not do what it should.

import { readdir } from "node:fs/promises";
import { join, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { serve } from "./serve.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const { values: given } = parseArgs({
  options: {
    model: { type: "string", default: join(HERE, "model") },
    file: { type: "string" },
    images: { type: "string" },
    screenshots: { type: "string" },
  },
});
const NOTES = { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("hi") };
const SHOWN = "document.querySelectorAll('#scores li').length > 0";
/** Addresses under /model/ are files of --model, the others files of this folder. */
const MODEL = join(HERE, "model") + sep;
const place = (path) => (path.startsWith(MODEL) ? join(resolve(given.model), path.slice(MODEL.length)) : path);
const server = await serve(0, place);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"],
});

const report = { images: {}, errors: {}, problems: [] };
try {
  const page = await open(given.file ? `?file=${given.file}` : "");
  await ready(page);
  report.runtime = await page.evaluate(() => performance.getEntriesByType("resource").map((entry) => entry.name));
  await classifySample(page);
  await classifyAll(page);
  await dropSample(page);
  report.errors.notAnImage = await refuse(page, NOTES);
  const damaged = Buffer.from("\x89PNG\r\n", "latin1");
  report.errors.damaged = await refuse(page, { name: "a.png", mimeType: "image/png", buffer: damaged });
  report.errors.noModel = await failedStart("?model=none");
  report.errors.noFile = await failedStart("?file=other.onnx");
  report.errors.noRuntime = await failedStart("", "**/node_modules/**");
  report.recovered = await classifySample(page); // an error does not end the page
  if (given.screenshots) await screenshots(given.screenshots);
} catch (error) {
  report.problems.push(String(error));
} finally {
  await browser.close();
  server.close();
}
console.log(JSON.stringify(report));
process.exitCode = report.problems.length ? 1 : 0;

/** Open the page; what it throws is a problem. */
async function open(query, options = {}, blocked = null) {
  const page = await browser.newPage({ viewport: { width: 1000, height: 860 }, ...options });
  page.on("pageerror", (error) => report.problems.push(`the page threw: ${error.message}`));
  if (blocked) await page.route(blocked, (route) => route.abort());
  await page.goto(server.address + query);
  return page;
}

/** Wait until the model is loaded. */
async function ready(page) {
  await page.waitForSelector("#sample:enabled, #error:not([hidden])", { timeout: 60_000 });
  if (await page.isVisible("#error")) throw new Error(await page.textContent("#error"));
}

/** Do something that makes the page classify, and return {name, ranked} as it shows them. */
async function classified(page, act) {
  const answer = page.evaluate(
    () => new Promise((done) => document.addEventListener("classified", (e) => done(e.detail), { once: true })),
  );
  await act();
  return answer;
}

async function classifySample(page) {
  const { ranked } = await classified(page, () => page.click("#sample"));
  await page.waitForFunction(SHOWN);
  const rows = await page.$$eval("#scores li", (items) => items.map((item) => item.textContent));
  const heading = await page.textContent("#answer");
  if (heading !== ranked[0].label || !rows[0].startsWith(ranked[0].label)) {
    report.problems.push(`the page shows ${heading} and ${rows}, the network said ${JSON.stringify(ranked[0])}`);
  }
  report.sample = ranked;
  report.shown = rows;
  report.times = await page.textContent("#times");
  return heading;
}

/** Drop a file on the page and see that it is classified like a chosen one. */
async function dropSample(page) {
  const { name, ranked } = await classified(page, () =>
    page.evaluate(async () => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([await (await fetch("sample.jpg")).blob()], "dropped.jpg"));
      document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
    }),
  );
  if (name !== "dropped.jpg" || ranked[0].score !== report.sample[0].score) {
    report.problems.push(`a dropped ${name} gave ${JSON.stringify(ranked[0])}`);
  }
}

async function classifyAll(page) {
  if (!given.images) return;
  for (const name of (await readdir(given.images)).sort()) {
    const found = await classified(page, () => page.setInputFiles("#file", join(given.images, name)));
    report.images[name] = Object.fromEntries(found.ranked.map(({ label, score }) => [label, score]));
  }
}

/** Choose a file that must be refused, and return what the page says. */
async function refuse(page, file) {
  await page.setInputFiles("#file", file);
  return errorOf(page);
}

async function failedStart(query, blocked = null) {
  const page = await open(query, {}, blocked);
  const text = await errorOf(page);
  await page.close();
  return text;
}

async function errorOf(page) {
  await page.waitForSelector("#error:not([hidden])", { timeout: 30_000 });
  return page.textContent("#error");
}

async function screenshots(folder) {
  const wide = { width: 1000, height: 720 };
  const looks = {
    light: { colorScheme: "light", viewport: wide },
    dark: { colorScheme: "dark", viewport: wide },
    phone: { colorScheme: "light", viewport: { width: 360, height: 740 }, deviceScaleFactor: 2 },
  };
  for (const [name, options] of Object.entries(looks)) {
    const page = await open(given.file ? `?file=${given.file}` : "", options);
    await ready(page);
    await page.screenshot({ path: join(folder, `${name}-empty.png`), fullPage: true });
    await classifySample(page);
    await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
    const width = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    if (width > 0) report.problems.push(`the page is ${width} px too wide (${name})`);
    await refuse(page, NOTES);
    await page.screenshot({ path: join(folder, `${name}-error.png`), fullPage: true });
    await page.close();
  }
}
