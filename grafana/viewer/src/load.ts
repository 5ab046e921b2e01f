/** From a panel to its data: queries, transformations, field settings. */
import {
  type DataFrame,
  type GrafanaTheme2,
  standardTransformers,
  standardTransformersRegistry,
  transformDataFrame,
} from "@grafana/data";
import { firstValueFrom } from "rxjs";

import { type Panel, type Target } from "./dashboard";
import { applyFieldConfig } from "./fields";
import { toFrames } from "./frames";
import { type Prometheus, type Range } from "./prometheus";
import { type Placed } from "./rows";
import { type Variables } from "./variables";

/** By id, since one of them is there under two names. */
const TRANSFORMERS = new Map(Object.values(standardTransformers).map((transformer) => [transformer.id as string, transformer]));

standardTransformersRegistry.setInit(() =>
  [...TRANSFORMERS.values()].map((transformer) => ({
    id: transformer.id,
    name: transformer.name,
    transformation: () => Promise.resolve(transformer),
    editor: () => null,
    imageDark: "",
    imageLight: "",
  })),
);

/** A panel with its data. */
export interface Loaded {
  panel: Panel;
  frames: DataFrame[];
  /** Why queries failed. */
  errors: string[];
}

export interface Source {
  prometheus: Prometheus;
  range: Range;
  theme: GrafanaTheme2;
}

export async function load({ panel: written, variables }: Placed, source: Source): Promise<Loaded> {
  const panel = { ...written, title: variables.interpolate(written.title) };
  const targets = (panel.targets ?? []).filter((target) => !target.hide);
  const several = targets.filter((target) => target.format === "table").length > 1;
  const answers = await Promise.allSettled(targets.map((target) => query(target, variables, source, several)));
  const raw = answers.flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
  const errors = answers.flatMap((answer) => (answer.status === "rejected" ? [String(answer.reason)] : []));
  const frames = applyFieldConfig(panel, await transform(panel, raw, variables), variables, source.theme);
  return { panel, frames, errors };
}

async function query(target: Target, variables: Variables, source: Source, several: boolean): Promise<DataFrame[]> {
  const { prometheus, range } = source;
  const expression = variables.interpolate(target.expr);
  const answer = await (target.instant ? prometheus.instant(expression, range.end) : prometheus.range(expression, range));
  return toFrames(target, answer, range.step, several);
}

function transform(panel: Panel, frames: DataFrame[], variables: Variables): Promise<DataFrame[]> {
  if (!panel.transformations?.length) {
    return Promise.resolve(frames);
  }
  return firstValueFrom(transformDataFrame(panel.transformations, frames, { interpolate: variables.interpolate }));
}
