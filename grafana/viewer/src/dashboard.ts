/** A dashboard's file, as far as the viewer reads it. */
import { type DataTransformerConfig, type FieldConfigSource } from "@grafana/data";

/** In units of the grid: 24 columns, and rows of 30 pixels. */
export interface GridPos {
  x: number;
  y: number;
  w: number;
  h: number;
}

export interface Target {
  refId: string;
  expr: string;
  format?: "time_series" | "table" | "heatmap";
  instant?: boolean;
  legendFormat?: string;
  hide?: boolean;
}

export interface Panel {
  id: number;
  type: string;
  title: string;
  description?: string;
  gridPos: GridPos;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- each kind of panel has its own
  options?: any;
  fieldConfig?: FieldConfigSource;
  targets?: Target[];
  transformations?: DataTransformerConfig[];
  transparent?: boolean;
  /** Of a row only: whether it is closed, what it then has inside, and the variable for whose values it is repeated. */
  collapsed?: boolean;
  panels?: Panel[];
  repeat?: string;
}

export interface Choice {
  text: string | string[];
  value: string | string[];
}

export interface Variable {
  name: string;
  label?: string;
  type: "datasource" | "query" | "custom" | "adhoc" | "constant" | "textbox" | "interval";
  query?: string | { query: string };
  regex?: string;
  sort?: number;
  current?: Partial<Choice>;
  includeAll?: boolean;
  allValue?: string | null;
  multi?: boolean;
  hide?: number;
}

export interface Dashboard {
  uid: string;
  title: string;
  tags?: string[];
  links?: { title: string; type: string; asDropdown?: boolean; icon?: string }[];
  panels: Panel[];
  templating?: { list: Variable[] };
}

/** The row below the last panel. */
export function heightOf(panels: Panel[]): number {
  return Math.max(0, ...panels.map(({ gridPos }) => gridPos.y + gridPos.h));
}
