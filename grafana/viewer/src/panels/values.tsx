/** Panels that show single values: stat and bar gauge. */
import { type FieldDisplay, VizOrientation, getDisplayValueAlignmentFactors, getFieldDisplayValues } from "@grafana/data";
import { BarGauge, BigValue, BigValueGraphMode, VizRepeater } from "@grafana/ui";
import { type JSX } from "react";

import { fieldConfigOf } from "../fields";
import { type PanelProps } from "./panel";

const STAT = { colorMode: "value", graphMode: "area", justifyMode: "auto", textMode: "auto", wideLayout: true };
const BAR_GAUGE = { displayMode: "gradient", valueMode: "color", namePlacement: "auto", showUnfilled: true };
const REDUCE = { calcs: ["lastNotNull"], fields: "", values: false };

export function Stat(props: PanelProps): JSX.Element {
  const options = { ...STAT, ...props.panel.options };
  const values = valuesOf(props, options.graphMode !== BigValueGraphMode.None);
  return (
    <VizRepeater
      {...repeated(props, values)}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      itemSpacing={3}
      autoGrid
      orientation={options.orientation ?? VizOrientation.Auto}
      renderValue={({ value: { display, sparkline }, width, height, alignmentFactors, count }) => (
        <BigValue
          {...{ width, height, alignmentFactors, count, sparkline }}
          value={display}
          theme={props.theme}
          colorMode={options.colorMode}
          graphMode={options.graphMode}
          justifyMode={options.justifyMode}
          textMode={options.textMode}
          text={options.text}
          disableWideLayout={!options.wideLayout}
        />
      )}
    />
  );
}

export function Bars(props: PanelProps): JSX.Element {
  const options = { ...BAR_GAUGE, ...props.panel.options };
  const values = valuesOf(props, false);
  const orientation = options.orientation ?? VizOrientation.Auto;
  return (
    <VizRepeater
      {...repeated(props, values)}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      itemSpacing={8}
      minVizWidth={options.minVizWidth ?? 8}
      minVizHeight={options.minVizHeight ?? 16}
      maxVizHeight={options.maxVizHeight ?? 300}
      orientation={orientation}
      renderValue={({ value: { display, field, view, colIndex }, width, height, alignmentFactors, orientation }) => (
        <BarGauge
          {...{ width, height, alignmentFactors, field, orientation }}
          value={display}
          display={view?.getFieldDisplayProcessor(colIndex ?? 0)}
          theme={props.theme}
          displayMode={options.displayMode}
          valueDisplayMode={options.valueMode}
          namePlacement={options.namePlacement}
          showUnfilled={options.showUnfilled}
          text={options.text}
          itemSpacing={8}
          lcdCellWidth={12}
        />
      )}
    />
  );
}

function valuesOf({ panel, frames, theme }: PanelProps, sparkline: boolean): FieldDisplay[] {
  return getFieldDisplayValues({
    data: frames,
    fieldConfig: fieldConfigOf(panel),
    reduceOptions: { ...REDUCE, ...panel.options?.reduceOptions },
    replaceVariables: (text) => text,
    timeZone: "utc",
    sparkline,
    theme,
  });
}

function repeated({ width, height, frames }: PanelProps, values: FieldDisplay[]) {
  return { width, height, source: frames, getValues: () => values, renderCounter: 0 };
}
