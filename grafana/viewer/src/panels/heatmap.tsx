/** Heatmaps of buckets. Grafana does not publish its own, so these are drawn here, in its colours and with its axes. */
import { type DataFrame, type GrafanaTheme2, dateTimeFormat, formattedValueToString, getValueFormat } from "@grafana/data";
import * as chromatic from "d3-scale-chromatic";
import { type JSX, useEffect, useRef } from "react";

import { bound } from "../frames";
import { type PanelProps } from "./panel";

const FONT_PIXELS = 12;
const GAP = 1;
const MARGIN = { top: 4, right: 8, bottom: 22 };
const LEGEND_HEIGHT = 34;
const LEGEND_WIDTH = 200;
const TICK_PIXELS = 90;
const ROW_PIXELS = 18;
const TICK_SECONDS = [5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600];

export function Heatmap({ panel, frames, width, height, timeRange, theme }: PanelProps): JSX.Element {
  const frame = frames[0]!;
  const canvas = useRef<HTMLCanvasElement>(null);
  const options = panel.options ?? {};
  const legend = options.legend?.show ?? true;
  const plotHeight = height - (legend ? LEGEND_HEIGHT : 0);
  const palette = paletteOf(options.color, theme);
  const most = options.color?.max ?? greatest(frame);
  useEffect(() => {
    const context = sharp(canvas.current!, width, plotHeight);
    const plot = new Plot(context, frame, { width, height: plotHeight, theme, unit: options.yAxis?.unit ?? "short" });
    const [from, to] = [timeRange.from.valueOf(), timeRange.to.valueOf()];
    plot.cells({ from, to, least: options.filterValues?.le ?? 1e-9, colour: (value) => pick(palette, value / most) });
    plot.timeAxis(from, to);
    plot.bucketAxis();
  });
  return (
    <>
      <canvas ref={canvas} style={{ width, height: plotHeight, display: "block" }} />
      {legend && <Scale palette={palette} most={most} unit={options.cellValues?.unit ?? "short"} theme={theme} />}
    </>
  );
}

/** A frame drawn on a canvas: time to the right, buckets upwards. */
class Plot {
  private readonly left: number;
  private readonly right: number;
  private readonly bottom: number;
  private readonly bounds: number[];
  private readonly rowHeight: number;

  constructor(
    private readonly context: CanvasRenderingContext2D,
    private readonly frame: DataFrame,
    private readonly look: { width: number; height: number; theme: GrafanaTheme2; unit: string },
  ) {
    context.font = `${FONT_PIXELS}px ${look.theme.typography.fontFamily}`;
    this.bounds = frame.fields.slice(1).map(({ name }) => bound(name));
    this.left = Math.max(...this.bounds.map((le) => context.measureText(this.label(le)).width)) + 12;
    this.right = look.width - MARGIN.right;
    this.bottom = look.height - MARGIN.bottom;
    this.rowHeight = (this.bottom - MARGIN.top) / this.bounds.length;
  }

  /** Times are milliseconds; values below `least` are left out. */
  cells({ from, to, least, colour }: { from: number; to: number; least: number; colour: (value: number) => string }): void {
    const [time, ...rows] = this.frame.fields as [DataFrame["fields"][number], ...DataFrame["fields"]];
    const perMillisecond = (this.right - this.left) / (to - from);
    const cellWidth = time.config.interval! * perMillisecond;
    rows.forEach(({ values }, row) => {
      values.forEach((value: number, index) => {
        if (value >= least) {
          this.context.fillStyle = colour(value);
          const x = this.left + (time.values[index] - from) * perMillisecond - cellWidth;
          this.context.fillRect(x, this.bottom - (row + 1) * this.rowHeight, cellWidth - GAP, this.rowHeight - GAP);
        }
      });
    });
  }

  timeAxis(from: number, to: number): void {
    const fitting = Math.floor((this.right - this.left) / TICK_PIXELS);
    const seconds = TICK_SECONDS.find((each) => (to - from) / 1000 / each <= fitting) ?? 3600;
    const format = seconds < 60 ? "HH:mm:ss" : "HH:mm";
    this.ink("center");
    for (let tick = Math.ceil(from / 1000 / seconds) * seconds * 1000; tick <= to; tick += seconds * 1000) {
      const x = this.left + ((tick - from) / (to - from)) * (this.right - this.left);
      this.context.fillText(dateTimeFormat(tick, { format, timeZone: "utc" }), x, this.bottom + 16);
    }
  }

  /** The upper bounds of the buckets, as many as there is room for. */
  bucketAxis(): void {
    const every = Math.ceil(ROW_PIXELS / this.rowHeight);
    this.ink("right");
    this.bounds.forEach((le, row) => {
      if (row % every === 0) {
        this.context.fillText(this.label(le), this.left - 8, this.bottom - (row + 1) * this.rowHeight + FONT_PIXELS / 2);
      }
    });
  }

  private ink(align: CanvasTextAlign): void {
    this.context.fillStyle = this.look.theme.colors.text.primary;
    this.context.textAlign = align;
  }

  private label(le: number): string {
    return le === Infinity ? "+Inf" : formattedValueToString(getValueFormat(this.look.unit)(le));
  }
}

function Scale({ palette, most, unit, theme }: { palette: string[]; most: number; unit: string; theme: GrafanaTheme2 }): JSX.Element {
  const format = (value: number) => formattedValueToString(getValueFormat(unit)(value));
  const background = `linear-gradient(to right, ${palette.join(", ")})`;
  const text = { display: "flex", justifyContent: "space-between", ...theme.typography.bodySmall, color: theme.colors.text.primary };
  return (
    <div style={{ width: LEGEND_WIDTH, paddingTop: 6 }}>
      <div style={{ height: 9, background }} />
      <div style={text}>
        <span>{format(0)}</span>
        <span>{format(most)}</span>
      </div>
    </div>
  );
}

/** Colours from few to many: schemes of one hue begin at the background, so they are turned round on a dark one. */
function paletteOf(color: { scheme?: string; steps?: number; reverse?: boolean } = {}, theme: GrafanaTheme2): string[] {
  const { scheme = "Oranges", steps = 64, reverse = false } = color;
  const interpolate = (chromatic as unknown as Record<string, (share: number) => string>)[`interpolate${scheme}`];
  if (!interpolate) {
    throw new Error(`unknown colour scheme ${scheme}`);
  }
  const colours = Array.from({ length: steps }, (_, step) => interpolate(step / (steps - 1)));
  return theme.isDark !== reverse ? colours.reverse() : colours;
}

function pick(palette: string[], share: number): string {
  return palette[Math.min(palette.length - 1, Math.floor(share * palette.length))]!;
}

function greatest(frame: DataFrame): number {
  return Math.max(1e-9, ...frame.fields.slice(1).flatMap(({ values }) => values as number[]));
}

/** A context with as many pixels as the screen has. */
function sharp(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D {
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  const context = canvas.getContext("2d")!;
  context.scale(devicePixelRatio, devicePixelRatio);
  return context;
}
