/** What a person would not like to see on the drawn page. */
import { type Loaded } from "./load";
import { unknownUnits } from "./fields";
import { isEmpty } from "./grid";

export interface Problem {
  panel: string;
  problem: string;
}

/** Of the panels as they are drawn. */
export function problemsOf(panels: Loaded[]): Problem[] {
  return panels.flatMap((loaded, index) => {
    const drawn = document.querySelector<HTMLElement>(`[data-panel="${index}"]`)!;
    return findings(loaded, drawn).map((problem) => ({ panel: loaded.panel.title, problem }));
  });
}

function findings(loaded: Loaded, drawn: HTMLElement): string[] {
  return [
    ...loaded.errors.map((error) => `query failed: ${error}`),
    ...(isEmpty(loaded) ? ["no data"] : []),
    ...unknownUnits(loaded.panel).map((unit) => `unknown unit: ${unit}`),
    ...cutTexts(drawn).map((text) => `text cut: ${text}`),
    ...(isTooWide(drawn) ? ["table wider than its panel"] : []),
    ...(/\bNaN\b/.test(drawn.innerText) ? ["shows NaN"] : []),
  ];
}

function isTooWide(drawn: HTMLElement): boolean {
  return [...drawn.querySelectorAll("[role=grid]")].some((table) => table.scrollWidth > table.clientWidth);
}

/** Texts that end in an ellipsis since there is no room for them. */
function cutTexts(drawn: HTMLElement): string[] {
  const elements = [...drawn.querySelectorAll<HTMLElement>("*")];
  const cut = elements.filter((element) => element.scrollWidth > element.clientWidth && getComputedStyle(element).textOverflow === "ellipsis");
  return [...new Set(cut.map((element) => element.innerText).filter(Boolean))];
}
