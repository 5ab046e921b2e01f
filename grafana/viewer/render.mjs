/* Pictures of dashboards over a live Prometheus, as a person sees them in Grafana:
 *
 *   node render.mjs --prometheus http://localhost:9090 --out docs/images ../dashboards/*.json
 *
 * --theme light and --seconds 300 are there too, --now 1796000000 for another time, and --colours 0 to keep all of them. On standard output a line of JSON for each dashboard says what a
 * person would not like: {"dashboard", "title", "panels", "problems": [{"panel", "problem"}]}.
 */
import { createServer } from "node:http";
import { readFile, writeFile } from "node:fs/promises";
import { basename, dirname, extname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { build } from "esbuild";
import { chromium } from "playwright-core";
import UPNG from "upng-js";

const HERE = dirname(fileURLToPath(import.meta.url));
const MODULES = join(HERE, "node_modules");
const BUILD = join(HERE, ".build");
const WIDTH = 1600;
/* Higher than any dashboard: what is out of sight is not drawn. */
const HEIGHT = 5000;
const TIMEOUT_MS = 60_000;
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json" };
/* Where Grafana's components look for their files, and where npm has them. */
const PUBLIC = [
  [/^\/public\/build\/img\/(.*)$/, join(MODULES, "@grafana/ui/dist/public/img")],
  [/^\/public\/fonts\/inter\/Inter-Regular\.(woff2)$/, join(MODULES, "@fontsource/inter/files/inter-latin-400-normal.")],
  [/^\/public\/fonts\/inter\/Inter-Medium\.(woff2)$/, join(MODULES, "@fontsource/inter/files/inter-latin-500-normal.")],
];
const CHROMIUM = [
  "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--hide-scrollbars",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

async function bundle() {
  const files = Object.fromEntries([".svg", ".png", ".woff", ".woff2", ".ttf"].map((type) => [type, "dataurl"]));
  await build({
    absWorkingDir: HERE,
    entryPoints: ["src/page.tsx"],
    outfile: join(BUILD, "page.js"),
    bundle: true,
    minify: true,
    define: { "process.env.NODE_ENV": '"production"' },
    loader: files,
    logLevel: "error",
  });
}

/** Serve the page, what its components ask for, and the dashboards by their names. */
function serve(dashboards) {
  const own = new Map([["/", join(HERE, "page.html")], ["/page.js", join(BUILD, "page.js")], ["/page.css", join(BUILD, "page.css")]]);
  dashboards.forEach((file) => own.set(`/dashboards/${basename(file)}`, resolve(file)));
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const file = own.get(pathname) ?? publicFile(pathname);
    try {
      response.setHeader("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
      response.end(await readFile(file));
    } catch {
      response.writeHead(404).end();
    }
  });
  return new Promise((listening) => server.listen(0, "127.0.0.1", () => listening(server)));
}

function publicFile(pathname) {
  for (const [pattern, place] of PUBLIC) {
    const match = pattern.exec(pathname);
    if (match) {
      return place.endsWith(".") ? place + match[1] : join(place, match[1]);
    }
  }
  return "";
}

async function render(browser, address, file, options) {
  const page = await browser.newPage({ viewport: { width: WIDTH, height: HEIGHT } });
  const errors = [];
  page.on("pageerror", (error) => errors.push({ panel: "", problem: `script failed: ${error.message}` }));
  const query = new URLSearchParams({ ...options.query, dashboard: `/dashboards/${basename(file)}` });
  await page.goto(`${address}/?${query}`);
  await page.waitForFunction("window.report", null, { timeout: TIMEOUT_MS });
  const report = await page.evaluate("window.report");
  const height = await page.evaluate("document.getElementById('root').scrollHeight");
  const clip = { x: 0, y: 0, width: WIDTH, height };
  const picture = await page.screenshot({ clip });
  await writeFile(join(options.out, `${basename(file, ".json")}.png`), options.colours ? smaller(picture, options.colours) : picture);
  await page.close();
  return { dashboard: basename(file, ".json"), ...report, problems: [...report.problems, ...errors] };
}

/** The same picture in fewer colours: with 256, a third of the size. */
function smaller(png, colours) {
  const image = UPNG.decode(png);
  return Buffer.from(UPNG.encode(UPNG.toRGBA8(image), image.width, image.height, colours));
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    prometheus: { type: "string" },
    out: { type: "string", default: "." },
    theme: { type: "string", default: "dark" },
    seconds: { type: "string", default: "120" },
    now: { type: "string" },
    colours: { type: "string", default: "256" },
    chromium: { type: "string", default: "/usr/bin/chromium" },
  },
});
const { out, chromium: executablePath, colours, ...query } = values;
await bundle();
const server = await serve(positionals);
const browser = await chromium.launch({ executablePath, args: CHROMIUM });
try {
  for (const file of positionals) {
    const report = await render(browser, `http://127.0.0.1:${server.address().port}`, file, { out, query, colours: Number(colours) });
    process.stdout.write(`${JSON.stringify(report)}\n`);
  }
} finally {
  await browser.close();
  server.close();
}
