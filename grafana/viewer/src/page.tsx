/** The page: one dashboard over one Prometheus, both named in the address.
 *
 *   ?dashboard=/dashboards/kthena-overview.json&prometheus=http://localhost:9090&seconds=120&theme=dark
 *
 * When all is drawn, `window.report` is there.
 */
import "@fontsource/inter/400.css";
import "@fontsource/inter/500.css";
import "uplot/dist/uPlot.min.css";

import { ThemeContext, createTheme, dateTime } from "@grafana/data";
import { GlobalStyles, PortalContainer } from "@grafana/ui";
import { createRoot } from "react-dom/client";

import { type Dashboard } from "./dashboard";
import { Grid } from "./grid";
import { Header } from "./header";
import { load } from "./load";
import { Prometheus } from "./prometheus";
import { type Problem, problemsOf } from "./report";
import { layOut } from "./rows";
import { Variables } from "./variables";

declare global {
  interface Window {
    report?: { title: string; panels: number; problems: Problem[] };
  }
}

const PADDING = 16;
const RATE_INTERVAL = "15s";
/** Seconds between points. */
const STEP = 2;
const FRAMES_UNTIL_DRAWN = 30;
/** Seconds between the times on the axes, and from the last of them to the edge, where it would be cut. */
const TICK = 30;
const TO_EDGE = 8;

async function main(): Promise<void> {
  const parameters = new URLSearchParams(location.search);
  const seconds = Number(parameters.get("seconds") ?? 120);
  const prometheus = new Prometheus(parameters.get("prometheus")!);
  const dashboard = (await (await fetch(parameters.get("dashboard")!)).json()) as Dashboard;
  const theme = createTheme({ colors: { mode: parameters.get("theme") === "light" ? "light" : "dark" } });

  const now = Number(parameters.get("now") ?? Date.now() / 1000);
  const end = Math.floor((now - TO_EDGE) / TICK) * TICK + TO_EDGE;
  const range = { start: end - seconds, end, step: STEP };
  const variables = new Variables({
    __rate_interval: RATE_INTERVAL,
    __interval: `${STEP}s`,
    __range: `${seconds}s`,
    __range_s: String(seconds),
  });
  await variables.settle(dashboard, prometheus, range);
  const placed = layOut(dashboard.panels, variables);
  const panels = await Promise.all(placed.map((each) => load(each, { prometheus, range, theme })));

  const [from, to] = [dateTime(range.start * 1000), dateTime(range.end * 1000)];
  const timeRange = { from, to, raw: { from, to } };
  document.body.style.margin = "0";
  createRoot(document.getElementById("root")!).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <PortalContainer />
      <Header {...{ dashboard, variables, theme }} during={seconds % 60 ? `Last ${seconds} seconds` : `Last ${seconds / 60} minutes`} />
      <div style={{ padding: PADDING }}>
        <Grid {...{ panels, timeRange, theme }} width={innerWidth - 2 * PADDING} />
      </div>
    </ThemeContext.Provider>,
  );
  await drawn();
  const charts = panels.filter(({ panel }) => panel.type !== "row");
  window.report = { title: dashboard.title, panels: charts.length, problems: problemsOf(panels) };
}

/** Components measure themselves and draw again, icons and fonts are fetched: some frames after the last of them. */
async function drawn(): Promise<void> {
  await document.fonts.ready;
  for (let frame = 0; frame < FRAMES_UNTIL_DRAWN; frame += 1) {
    await new Promise(requestAnimationFrame);
  }
}

main().catch((error: unknown) => {
  window.report = { title: document.title, panels: 0, problems: [{ panel: "", problem: String(error) }] };
});
