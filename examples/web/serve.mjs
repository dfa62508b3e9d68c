// A small static server for this folder, on this machine only: `npm start`, or `serve()` in the tests.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".png": "image/png",
  ".wasm": "application/wasm", // the runtime compiles it while it loads
};

/**
 * Serve this folder.
 *
 * @param {number} port 0 takes a free one
 * @param {(path: string) => string} place where another file is to be served for an address; for tests
 * @returns {Promise<{address: string, close: function}>}
 */
export async function serve(port = 0, place = (path) => path) {
  const server = createServer(async ({ url }, response) => {
    try {
      const path = normalize(decodeURIComponent(new URL(url, "http://x").pathname)); // no ".." is left
      const file = place(join(HERE, path.endsWith("/") ? `${path}index.html` : path));
      const body = await readFile(file);
      response.writeHead(200, { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((done, fail) => server.once("error", fail).listen(port, "127.0.0.1", done));
  return { address: `http://127.0.0.1:${server.address().port}/`, close: () => server.close() };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const port = Number(process.argv[2] ?? 8000);
  await serve(port).then(
    ({ address }) => console.log(`${address} (Ctrl-C ends it)`),
    (error) => {
      console.error(`Error: port ${port} cannot be used (${error.code}). Give another: npm start -- 8080`);
      process.exitCode = 1;
    },
  );
}
