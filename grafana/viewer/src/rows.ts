/** Rows as Grafana lays them out: repeated for the values of a variable, and here all open. */
import { type Panel } from "./dashboard";
import { heightOf } from "./dashboard";
import { type Variables } from "./variables";

/** A panel in its place, and the variables that it sees: a repeated row's has one value. */
export interface Placed {
  panel: Panel;
  variables: Variables;
}

/** A row, or none at the top, and the panels up to the next one. */
interface Section {
  row?: Panel;
  panels: Panel[];
}

export function layOut(panels: Panel[], variables: Variables): Placed[] {
  const placed: Placed[] = [];
  let top = 0;
  for (const section of sectionsOf(panels)) {
    for (const seen of repetitions(section.row, variables)) {
      const moved = at(top, section);
      placed.push(...moved.map((panel) => ({ panel, variables: seen })));
      top = Math.max(top, heightOf(moved));
    }
  }
  return placed;
}

function sectionsOf(panels: Panel[]): Section[] {
  const sections: Section[] = [{ panels: [] }];
  for (const panel of [...panels].sort((a, b) => a.gridPos.y - b.gridPos.y || a.gridPos.x - b.gridPos.x)) {
    if (panel.type === "row") {
      sections.push({ row: panel, panels: [...(panel.panels ?? [])] });
    } else {
      sections.at(-1)!.panels.push(panel);
    }
  }
  return sections;
}

function repetitions(row: Panel | undefined, variables: Variables): Variables[] {
  return row?.repeat ? variables.eachValueOf(row.repeat) : [variables];
}

function at(top: number, { row, panels }: Section): Panel[] {
  const header = row ? [{ ...row, gridPos: { ...row.gridPos, y: top } }] : [];
  const below = top + (row?.gridPos.h ?? 0);
  const first = Math.min(...panels.map(({ gridPos }) => gridPos.y));
  return [...header, ...panels.map((panel) => ({ ...panel, gridPos: { ...panel.gridPos, y: panel.gridPos.y - first + below } }))];
}
