/** A panel's field settings, put on its data by Grafana's own functions. */
import {
  type DataFrame,
  type FieldConfigPropertyItem,
  FieldConfigOptionsRegistry,
  type FieldConfigSource,
  type GrafanaTheme2,
  applyFieldOverrides,
  cacheFieldDisplayNames,
  getValueFormats,
  identityOverrideProcessor,
} from "@grafana/data";

import { type Panel } from "./dashboard";
import { type Variables } from "./variables";

const STANDARD = [
  "unit", "min", "max", "fieldMinMax", "decimals", "displayName", "noValue", "thresholds", "mappings", "links",
  "actions", "color", "filterable", "description",
]; // prettier-ignore

/** What a panel has for each field when its file says nothing. */
const CUSTOM_DEFAULTS: Record<string, object> = {
  timeseries: { drawStyle: "line", lineInterpolation: "linear", lineWidth: 1, fillOpacity: 0, gradientMode: "none", showPoints: "auto", pointSize: 5 },
  table: { align: "auto", cellOptions: { type: "auto" }, inspect: false },
};

const PREFIXED_UNIT = /^(suffix|prefix|time|si|count|currency|bool):/;

export function applyFieldConfig(panel: Panel, frames: DataFrame[], variables: Variables, theme: GrafanaTheme2): DataFrame[] {
  const fieldConfig = fieldConfigOf(panel);
  const configured = applyFieldOverrides({
    data: frames,
    fieldConfig,
    fieldConfigRegistry: registry(fieldConfig),
    replaceVariables: variables.interpolate,
    theme,
    timeZone: "utc",
  });
  cacheFieldDisplayNames(configured);
  return configured;
}

export function fieldConfigOf(panel: Panel): FieldConfigSource {
  const { defaults = {}, overrides = [] } = panel.fieldConfig ?? {};
  const thresholds = { mode: "absolute" as const, steps: [{ color: "green", value: -Infinity }] };
  const custom = { ...CUSTOM_DEFAULTS[panel.type], ...defaults.custom };
  const whole = { mappings: [], ...defaults, custom, thresholds: opened(defaults.thresholds ?? thresholds) };
  return { defaults: whole as FieldConfigSource["defaults"], overrides: overrides.map(withOpenThresholds) };
}

/** Units in a panel's settings that Grafana does not know, and would show as they are. */
export function unknownUnits(panel: Panel): string[] {
  const known = new Set(getValueFormats().flatMap(({ submenu }) => submenu.map(({ value }) => value)));
  const { defaults, overrides = [] } = panel.fieldConfig ?? {};
  const properties = overrides.flatMap((rule) => rule.properties).filter(({ id }) => id === "unit");
  const units = [defaults?.unit, panel.options?.yAxis?.unit, ...properties.map(({ value }) => value as string)];
  return units.filter((unit): unit is string => Boolean(unit) && !known.has(unit!) && !PREFIXED_UNIT.test(unit!));
}

/** JSON has no -Infinity: a file's lowest threshold has none for a value. */
function opened<T extends { steps: { color: string; value: number | null }[] }>(thresholds: T): T {
  return { ...thresholds, steps: thresholds.steps.map((step) => ({ ...step, value: step.value ?? -Infinity })) };
}

function withOpenThresholds(rule: FieldConfigSource["overrides"][number]): FieldConfigSource["overrides"][number] {
  const properties = rule.properties.map(({ id, value }) => ({ id, value: id === "thresholds" ? opened(value) : value }));
  return { ...rule, properties };
}

/** The settings that there are; in Grafana each kind of panel has its list of them, here it is made from their use. */
function registry({ defaults, overrides }: FieldConfigSource): FieldConfigOptionsRegistry {
  const used = [
    ...Object.keys((defaults.custom as object | undefined) ?? {}),
    ...overrides.flatMap(({ properties }) => properties).filter(({ id }) => id.startsWith("custom.")).map(({ id }) => id.slice(7)),
  ];
  const items = [...STANDARD.map((name) => item(name, false)), ...[...new Set(used)].map((name) => item(name, true))];
  return new FieldConfigOptionsRegistry(() => items);
}

function item(path: string, isCustom: boolean): FieldConfigPropertyItem {
  const id = isCustom ? `custom.${path}` : path;
  const nothing = () => null;
  return { id, path, isCustom, name: id, process: identityOverrideProcessor, shouldApply: () => true, editor: nothing, override: nothing };
}
