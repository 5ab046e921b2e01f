/* What Grafana accepts in a dashboard, made from its own published types and code: `node schema.mjs > FILE`.
 *
 *   {"dashboard": JSON Schema of a file,
 *    "panels": {"stat": {"options": JSON Schema, "custom": JSON Schema or null}, ...},
 *    "names": {"units": ["none", "s", ...], "reducers": [...], "matchers": [...], "transformations": [...]}}
 */
import { build } from "esbuild";
import { createGenerator } from "ts-json-schema-generator";

const TYPES = "node_modules/@grafana/schema/dist/types/raw";
const DATA = "./node_modules/@grafana/data/dist/esm";
const PANELS = ["bargauge", "heatmap", "stat", "table", "text", "timeseries"];
/** Those that have settings for each field. */
const WITH_CUSTOM = new Set(["heatmap", "table", "timeseries"]);

function schemaOf(file, type) {
  const path = `${TYPES}/${file}/x/types.gen.d.ts`;
  return createGenerator({ path, type, skipTypeCheck: true, jsDoc: "none" }).createSchema(type);
}

function panel(kind) {
  const file = `composable/${kind}/panelcfg`;
  return {
    options: schemaOf(file, "Options"),
    custom: WITH_CUSTOM.has(kind) ? schemaOf(file, "FieldConfig") : null,
  };
}

const NAMES = `
  import { FieldMatcherID } from "${DATA}/transformations/matchers/ids.mjs";
  import { ReducerID } from "${DATA}/transformations/fieldReducer.mjs";
  import { DataTransformerID } from "${DATA}/transformations/transformers/ids.mjs";
  import { getValueFormats } from "${DATA}/valueFormats/valueFormats.mjs";

  export const names = {
    units: getValueFormats().flatMap((category) => category.submenu.map((unit) => unit.value)),
    reducers: Object.values(ReducerID),
    matchers: Object.values(FieldMatcherID),
    transformations: Object.values(DataTransformerID),
  };`;

/** What schemas know only as text. From a bundle, since Node cannot import the modules as they are published. */
async function names() {
  const outfile = ".build/names.mjs";
  // The formats ask the browser for its language.
  const define = { navigator: '{"languages": ["en"], "language": "en"}' };
  await build({ stdin: { contents: NAMES, resolveDir: "." }, bundle: true, format: "esm", define, outfile });
  return (await import(`./${outfile}`)).names;
}

const accepted = {
  dashboard: schemaOf("dashboard", "Dashboard"),
  panels: Object.fromEntries(PANELS.map((kind) => [kind, panel(kind)])),
  names: await names(),
};
process.stdout.write(JSON.stringify(accepted));
