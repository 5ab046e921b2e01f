/** What every kind of panel is given to draw. */
import { type GrafanaTheme2, type TimeRange } from "@grafana/data";

import { type Loaded } from "../load";

export interface PanelProps extends Loaded {
  width: number;
  height: number;
  timeRange: TimeRange;
  theme: GrafanaTheme2;
}
