/** The HTTP API of Prometheus, as far as dashboards use it. */

/** A point is unix seconds and a number as text. */
export type Point = [number, string];

export interface Series {
  metric: Record<string, string>;
  points: Point[];
}

/** Times are unix seconds, the step is seconds. */
export interface Range {
  start: number;
  end: number;
  step: number;
}

interface Answer {
  status: "success" | "error";
  error?: string;
  data: unknown;
}

interface Result {
  result: { metric: Record<string, string>; value?: Point; values?: Point[] }[];
}

export class Prometheus {
  constructor(private readonly url: string) {}

  async instant(query: string, time: number): Promise<Series[]> {
    return series((await this.ask("query", { query, time: String(time) })) as Result);
  }

  async range(query: string, { start, end, step }: Range): Promise<Series[]> {
    const during = { start: String(start), end: String(end), step: String(step) };
    return series((await this.ask("query_range", { query, ...during })) as Result);
  }

  async labelValues(label: string, matcher: string | undefined, { start, end }: Range): Promise<string[]> {
    const match: Record<string, string> = matcher ? { "match[]": matcher } : {};
    const during = { start: String(start), end: String(end) };
    return (await this.ask(`label/${label}/values`, { ...match, ...during })) as string[];
  }

  private async ask(route: string, parameters: Record<string, string>): Promise<unknown> {
    const response = await fetch(`${this.url}/api/v1/${route}?${new URLSearchParams(parameters)}`);
    const answer = (await response.json()) as Answer;
    if (answer.status !== "success") {
      throw new Error(answer.error);
    }
    return answer.data;
  }
}

function series({ result }: Result): Series[] {
  return result.map(({ metric, value, values }) => ({ metric, points: values ?? (value ? [value] : []) }));
}
