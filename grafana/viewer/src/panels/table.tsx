/** Tables, by the component that draws them in Grafana. */
import { TableNG } from "@grafana/ui/unstable";
import { type JSX } from "react";

import { fieldConfigOf } from "../fields";
import { type PanelProps } from "./panel";

export function Table({ panel, frames, width, height, timeRange }: PanelProps): JSX.Element {
  const { frameIndex = 0, showHeader = true, cellHeight, sortBy } = panel.options ?? {};
  return (
    <TableNG
      {...{ width, height, cellHeight, sortBy, timeRange }}
      data={frames[frameIndex] ?? frames[0]!}
      noHeader={!showHeader}
      fieldConfig={fieldConfigOf(panel)}
      enableVirtualization={false}
    />
  );
}
