/** The panels in their places: 24 columns, rows of 30 pixels, 8 pixels between them, as in Grafana. */
import { type GrafanaTheme2, type TimeRange } from "@grafana/data";
import { Icon, PanelChrome } from "@grafana/ui";
import { type ComponentType, type CSSProperties, type JSX } from "react";

import { type GridPos, heightOf } from "./dashboard";
import { type Loaded } from "./load";
import { Heatmap } from "./panels/heatmap";
import { type PanelProps } from "./panels/panel";
import { Series } from "./panels/series";
import { Table } from "./panels/table";
import { Text } from "./panels/text";
import { Bars, Stat } from "./panels/values";

const COLUMNS = 24;
const ROW_PIXELS = 30;
const GAP_PIXELS = 8;

const KINDS: Record<string, ComponentType<PanelProps>> = {
  bargauge: Bars,
  heatmap: Heatmap,
  stat: Stat,
  table: Table,
  text: Text,
  timeseries: Series,
};
const WITHOUT_DATA = new Set(["row", "text"]);
/** They say themselves that there is nothing. */
const SHOWN_EMPTY = new Set(["stat", "text"]);

interface GridProps {
  panels: Loaded[];
  width: number;
  timeRange: TimeRange;
  theme: GrafanaTheme2;
}

export function Grid({ panels, width, timeRange, theme }: GridProps): JSX.Element {
  const height = rowsToPixels(heightOf(panels.map(({ panel }) => panel)));
  return (
    <div style={{ position: "relative", width, height }}>
      {panels.map((loaded, index) => (
        <div key={index} data-panel={index} style={placed(loaded.panel.gridPos, width)}>
          {loaded.panel.type === "row" ? <Row {...loaded} theme={theme} /> : <Framed {...{ loaded, width, timeRange, theme }} />}
        </div>
      ))}
    </div>
  );
}

export function isEmpty({ panel, frames }: Loaded): boolean {
  return !WITHOUT_DATA.has(panel.type) && !frames.some((frame) => frame.length > 0);
}

function Framed({ loaded, width, timeRange, theme }: { loaded: Loaded } & Omit<GridProps, "panels">): JSX.Element {
  const { panel, errors } = loaded;
  const place = placed(panel.gridPos, width);
  const Kind = KINDS[panel.type];
  if (!Kind) {
    throw new Error(`panel ${panel.title}: the viewer cannot draw ${panel.type}`);
  }
  return (
    <PanelChrome
      title={panel.title}
      description={panel.description}
      width={place.width}
      height={place.height}
      statusMessage={errors[0]}
      displayMode={panel.transparent ? "transparent" : "default"}
      padding={panel.type === "table" ? "none" : "md"}
    >
      {(innerWidth, innerHeight) =>
        isEmpty(loaded) && !SHOWN_EMPTY.has(panel.type) ? (
          <NoData text={panel.fieldConfig?.defaults.noValue} theme={theme} />
        ) : (
          <Kind {...loaded} width={innerWidth} height={innerHeight} timeRange={timeRange} theme={theme} />
        )
      }
    </PanelChrome>
  );
}

function NoData({ text = "No data", theme }: { text?: string; theme: GrafanaTheme2 }): JSX.Element {
  const style = { display: "flex", height: "100%", alignItems: "center", justifyContent: "center", color: theme.colors.text.secondary };
  return <div style={style}>{text}</div>;
}

function Row({ panel, theme }: Loaded & { theme: GrafanaTheme2 }): JSX.Element {
  const style = { display: "flex", alignItems: "center", gap: 4, height: ROW_PIXELS, color: theme.colors.text.primary };
  return (
    <div style={style}>
      <Icon name="angle-down" />
      <span style={{ ...theme.typography.h5, margin: 0, fontSize: 16 }}>{panel.title}</span>
    </div>
  );
}

function placed({ x, y, w, h }: GridPos, width: number): CSSProperties & { width: number; height: number } {
  const column = (width - GAP_PIXELS * (COLUMNS - 1)) / COLUMNS;
  return {
    position: "absolute",
    left: Math.round(x * (column + GAP_PIXELS)),
    top: rowsToPixels(y) + (y ? GAP_PIXELS : 0),
    width: Math.round(w * (column + GAP_PIXELS) - GAP_PIXELS),
    height: rowsToPixels(h),
  };
}

function rowsToPixels(rows: number): number {
  return Math.max(0, rows * (ROW_PIXELS + GAP_PIXELS) - GAP_PIXELS);
}
