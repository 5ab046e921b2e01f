/** Time series, by the component that draws them in Grafana. */
import { LegendDisplayMode, TimeSeries } from "@grafana/ui";
import { type JSX } from "react";

import { type PanelProps } from "./panel";

const LEGEND = { showLegend: true, displayMode: LegendDisplayMode.List, placement: "bottom" as const, calcs: [] };

export function Series({ panel, frames, width, height, timeRange }: PanelProps): JSX.Element {
  const legend = { ...LEGEND, ...panel.options?.legend };
  return <TimeSeries {...{ frames, width, height, timeRange, legend }} timeZone="utc" options={panel.options} />;
}
