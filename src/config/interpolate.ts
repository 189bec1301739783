/**
 * Environment variables in scalar values: `${NAME}`, `${NAME:-default}`, and `$${` for a literal
 * `${`. Works on values after YAML was parsed, so that no variable can add structure.
 */

/** Environment variables by name. */
export type Environment = Readonly<Record<string, string | undefined>>;

export type Interpolation =
  | { readonly text: string; readonly replaced: boolean }
  | { readonly faults: readonly string[] };

/** The text with its variables filled in, or everything that is wrong with them. */
export function interpolate(text: string, env: Environment): Interpolation {
  if (!text.includes("${")) return { text, replaced: false };
  const faults: string[] = [];
  let replaced = false;
  const result = text.replaceAll(/\$?\$\{([^}]*)(\}?)/g, (match, body: string, end: string) => {
    if (match.startsWith("$${")) return match.slice(1);
    const [, name, fallback] = /^([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?$/s.exec(body) ?? [];
    if (name === undefined || end === "") {
      const shown = JSON.stringify(match.slice(0, 40));
      faults.push(
        `${shown} is not a variable; write \${NAME}, \${NAME:-default}, or $\${ for the text \${`,
      );
      return match;
    }
    replaced = true;
    const value = Object.hasOwn(env, name) ? env[name] : undefined;
    // As in a shell, `:-` also stands in for a variable that is set and empty.
    if (fallback !== undefined) return value === undefined || value === "" ? fallback : value;
    if (value === undefined) {
      faults.push(
        `\${${name}} is not set in the environment; set it, or write \${${name}:-default}`,
      );
      return match;
    }
    return value;
  });
  return faults.length > 0 ? { faults } : { text: result, replaced };
}

/** What a plain (unquoted) scalar of this text would be in YAML: a number, a boolean or text. */
export function resolvePlain(text: string): string | number | boolean {
  if (/^[-+]?(?:\d+|\d*\.\d+|\d+\.\d*)(?:[eE][-+]?\d+)?$/.test(text)) return Number(text);
  if (/^(?:true|True|TRUE)$/.test(text)) return true;
  if (/^(?:false|False|FALSE)$/.test(text)) return false;
  return text;
}
