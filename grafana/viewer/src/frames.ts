/** Answers of Prometheus as data frames, as Grafana's Prometheus datasource makes them. */
import { type DataFrame, type Field, FieldType } from "@grafana/data";

import { type Target } from "./dashboard";
import { type Series } from "./prometheus";

const LABEL = /\{\{\s*(.+?)\s*\}\}/g;

/** `several` tells whether the panel has more than one table, whose values then need names of their own. */
export function toFrames(target: Target, answer: Series[], step: number, several: boolean): DataFrame[] {
  switch (target.format) {
    case "table":
      return answer.length ? [table(target, answer, several)] : [];
    case "heatmap":
      return answer.length ? [heatmap(target, answer, step)] : [];
    default:
      return answer.map((series) => timeSeries(target, series, step));
  }
}

function timeSeries(target: Target, { metric, points }: Series, step: number): DataFrame {
  const legend = legendOf(target, metric);
  const value: Field = {
    name: "Value",
    type: FieldType.number,
    labels: metric,
    config: legend === undefined ? {} : { displayNameFromDS: legend },
    values: points.map(([, text]) => Number(text)),
  };
  return { refId: target.refId, name: legend, fields: [timeField(points.map(([time]) => time), step), value], length: points.length };
}

function table(target: Target, answer: Series[], several: boolean): DataFrame {
  const rows = answer.flatMap(({ metric, points }) => points.map(([time, text]) => ({ metric, time, text })));
  const labels = [...new Set(answer.flatMap(({ metric }) => Object.keys(metric)))].sort();
  const fields = [
    timeField(rows.map(({ time }) => time), 0),
    ...labels.map((label) => column(label, FieldType.string, rows.map(({ metric }) => metric[label] ?? ""))),
    column(several ? `Value #${target.refId}` : "Value", FieldType.number, rows.map(({ text }) => Number(text))),
  ];
  return { refId: target.refId, fields, length: rows.length };
}

/** One field for each bucket, lowest first, with what is in this bucket and in none below it. */
function heatmap(target: Target, answer: Series[], step: number): DataFrame {
  const buckets = answer
    .map(({ metric, points }) => ({ le: metric["le"] ?? "", at: new Map(points.map(([time, text]) => [time, Number(text)])) }))
    .sort((a, b) => bound(a.le) - bound(b.le));
  const times = [...new Set(answer.flatMap(({ points }) => points.map(([time]) => time)))].sort((a, b) => a - b);
  const fields = buckets.map(({ le, at }, index) => {
    const below = index ? buckets[index - 1]!.at : new Map<number, number>();
    const inside = times.map((time) => Math.max(0, (at.get(time) ?? 0) - (below.get(time) ?? 0)));
    return column(le, FieldType.number, inside);
  });
  return { refId: target.refId, fields: [timeField(times, step), ...fields], length: times.length };
}

/** The upper bound of a bucket. */
export function bound(le: string): number {
  return le === "+Inf" ? Infinity : Number(le);
}

function timeField(seconds: number[], step: number): Field {
  const config = step ? { interval: step * 1000 } : {};
  return { name: "Time", type: FieldType.time, config, values: seconds.map((time) => time * 1000) };
}

function column(name: string, type: FieldType, values: unknown[]): Field {
  return { name, type, config: {}, values };
}

/** None for `__auto`, where Grafana makes a name from the labels. */
function legendOf({ legendFormat }: Target, metric: Record<string, string>): string | undefined {
  if (!legendFormat || legendFormat === "__auto") {
    return undefined;
  }
  return legendFormat.replace(LABEL, (_, label: string) => metric[label] ?? "");
}
