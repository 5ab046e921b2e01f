/** Texts in Markdown. */
import { renderMarkdown } from "@grafana/data";
import { type JSX } from "react";

import { type PanelProps } from "./panel";

export function Text({ panel }: PanelProps): JSX.Element {
  const __html = renderMarkdown(panel.options?.content ?? "");
  return <div className="markdown-html" dangerouslySetInnerHTML={{ __html }} />;
}
