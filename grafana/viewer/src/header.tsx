/** Above the panels: where one is, what the variables are set to, the links, and the time. */
import { type GrafanaTheme2 } from "@grafana/data";
import { Icon, ToolbarButton } from "@grafana/ui";
import { type CSSProperties, type JSX } from "react";

import { type Dashboard } from "./dashboard";
import { type Variables } from "./variables";

interface HeaderProps {
  dashboard: Dashboard;
  variables: Variables;
  during: string;
  theme: GrafanaTheme2;
}

const LINE: CSSProperties = { display: "flex", alignItems: "center", flexWrap: "wrap", gap: 8 };

export function Header({ dashboard, variables, during, theme }: HeaderProps): JSX.Element {
  const bar: CSSProperties = {
    ...LINE,
    height: 40,
    padding: "0 16px",
    background: theme.colors.background.primary,
    borderBottom: `1px solid ${theme.colors.border.weak}`,
  };
  return (
    <>
      <div style={bar}>
        <Icon name="apps" size="lg" />
        <span style={{ color: theme.colors.text.secondary }}>Dashboards</span>
        <Icon name="angle-right" style={{ color: theme.colors.text.secondary }} />
        <span>{dashboard.title}</span>
      </div>
      <div style={{ ...LINE, padding: "16px 16px 0", justifyContent: "space-between" }}>
        <div style={LINE}>
          {variables.shown().map(({ label, text }) => (
            <Picker key={label} label={label} text={text} theme={theme} />
          ))}
        </div>
        <div style={LINE}>
          {dashboard.links?.map(({ title, asDropdown }) => (
            <ToolbarButton key={title} variant="canvas" icon="external-link-alt" isOpen={asDropdown ? false : undefined}>
              {title}
            </ToolbarButton>
          ))}
          <ToolbarButton variant="canvas" icon="clock-nine" isOpen={false}>
            {during}
          </ToolbarButton>
        </div>
      </div>
    </>
  );
}

function Picker({ label, text, theme }: { label: string; text: string; theme: GrafanaTheme2 }): JSX.Element {
  const half: CSSProperties = { ...LINE, height: 32, padding: "0 8px", border: `1px solid ${theme.components.input.borderColor}`, fontSize: 14 };
  return (
    <div style={{ display: "flex" }}>
      <span style={{ ...half, background: theme.colors.background.primary, fontWeight: 500, fontSize: 12, borderRight: 0 }}>{label}</span>
      <span style={{ ...half, background: theme.components.input.background }}>
        {text}
        <Icon name="angle-down" />
      </span>
    </div>
  );
}
