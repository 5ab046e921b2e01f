/** The variables of a dashboard: their values, and texts with the values put in. */
import { type Dashboard, type Variable } from "./dashboard";
import { type Prometheus, type Range } from "./prometheus";

const ALL = "$__all";
const QUERY_RESULT = /^query_result\((.*)\)$/s;
const LABEL_VALUES = /^label_values\((?:(.*),\s*)?(\w+)\s*\)$/s;
const REFERENCE = /\$(\w+)|\$\{(\w+)(?::(\w+))?\}|\[\[(\w+)(?::(\w+))?\]\]/g;
const REGEX_CHARACTERS = /[\\^$*+?.()|[\]{}]/g;

/** What a variable is set to: a text for people, and the values. */
interface Setting {
  variable: Variable;
  text: string;
  values: string[];
  /** Stands for all values, and is put in as it is. */
  all?: string;
}

export class Variables {
  private readonly settings = new Map<string, Setting>();

  /** `builtIn` are those that Grafana itself sets, by name. */
  constructor(private readonly builtIn: Record<string, string>) {}

  /** Set each to its current value in the file, else to All, else to the first that there is; in their order. */
  async settle(dashboard: Dashboard, prometheus: Prometheus, range: Range): Promise<void> {
    for (const variable of dashboard.templating?.list ?? []) {
      const setting = await this.setting(variable, prometheus, range);
      if (setting) {
        this.settings.set(variable.name, setting);
      }
    }
  }

  /** Those that are shown, with label and text. */
  shown(): { label: string; text: string }[] {
    const visible = [...this.settings.values()].filter(({ variable }) => !variable.hide);
    return visible.map(({ variable, text }) => ({ label: variable.label ?? variable.name, text }));
  }

  /** The text with its variables; those that are not known stay. */
  interpolate = (text: string): string => {
    return text.replace(REFERENCE, (whole, plain, braced, format, bracketed, bracketedFormat) => {
      const name: string = plain ?? braced ?? bracketed;
      const setting = this.settings.get(name);
      return setting ? written(setting, format ?? bracketedFormat) : (this.builtIn[name] ?? whole);
    });
  };

  /** Copies in which the variable has one of its values. */
  eachValueOf(name: string): Variables[] {
    const { variable, values } = this.settings.get(name)!;
    return values.map((value) => {
      const copy = new Variables(this.builtIn);
      this.settings.forEach((setting, other) => copy.settings.set(other, setting));
      copy.settings.set(name, { variable, text: value, values: [value] });
      return copy;
    });
  }

  private async setting(variable: Variable, prometheus: Prometheus, range: Range): Promise<Setting | undefined> {
    switch (variable.type) {
      case "datasource":
        return { variable, text: "Prometheus", values: ["prometheus"] };
      case "adhoc":
        return undefined;
      case "query":
        return chosen(variable, await this.options(variable, prometheus, range));
      default:
        return chosen(variable, queryOf(variable).split(",").map(choice));
    }
  }

  private async options(variable: Variable, prometheus: Prometheus, range: Range): Promise<Option[]> {
    const found = await this.answers(variable, prometheus, range);
    const pattern = new RegExp(variable.regex?.replace(/^\/|\/$/g, "") ?? "");
    const matches = found.map((text) => pattern.exec(text)).filter((match) => match !== null);
    const values = variable.regex ? matches.map((match) => match[1] ?? match[0]) : found;
    return [...new Set(values)].sort().map((value) => ({ text: value, value }));
  }

  private async answers(variable: Variable, prometheus: Prometheus, range: Range): Promise<string[]> {
    const query = this.interpolate(queryOf(variable));
    const expression = QUERY_RESULT.exec(query)?.[1];
    if (expression) {
      return (await prometheus.instant(expression, range.end)).map(({ metric }) => labelsOf(metric));
    }
    const [, matcher, label] = LABEL_VALUES.exec(query) ?? [];
    if (!label) {
      throw new Error(`variable ${variable.name}: not understood: ${query}`);
    }
    return prometheus.labelValues(label, matcher, range);
  }
}

interface Option {
  text: string;
  value: string;
}

function queryOf(variable: Variable): string {
  return typeof variable.query === "object" ? variable.query.query : (variable.query ?? "");
}

/** One of a custom variable: a value, or `text : value`. */
function choice(written: string): Option {
  const [text, value = text] = written.split(" : ").map((part) => part.trim()) as [string, string?];
  return { text, value };
}

function labelsOf(metric: Record<string, string>): string {
  return `{${Object.entries(metric).map(([name, value]) => `${name}="${value}"`).join(",")}}`;
}

function chosen(variable: Variable, options: Option[]): Setting {
  const current = [variable.current?.value ?? []].flat().filter((value) => value !== "");
  if (variable.includeAll && (!current.length || current.includes(ALL))) {
    return { variable, text: "All", values: options.map(({ value }) => value), all: variable.allValue ?? undefined };
  }
  const values = current.length ? current : options.slice(0, 1).map(({ value }) => value);
  const texts = values.map((value) => options.find((option) => option.value === value)?.text ?? value);
  return { variable, text: texts.join(" + "), values };
}

/** As Grafana writes it into a query for Prometheus, unless the reference names a format. */
function written({ variable, text, values, all }: Setting, format: string | undefined): string {
  if (format === "text") {
    return text;
  }
  if (all !== undefined && format !== "queryparam") {
    return all;
  }
  switch (format) {
    case "queryparam":
      return (all === undefined ? values : [ALL]).map((value) => `var-${variable.name}=${encodeURIComponent(value)}`).join("&");
    case "raw":
    case "csv":
      return values.join(",");
    case "pipe":
      return values.join("|");
  }
  if (!variable.multi && !variable.includeAll && format !== "regex") {
    return values.join(",");
  }
  const escaped = values.map((value) => value.replace(REGEX_CHARACTERS, format === "regex" ? "\\$&" : "\\\\$&"));
  return escaped.length === 1 ? escaped[0]! : `(${escaped.join("|")})`;
}
