/**
 * What makes a listener the same one over reloads: the address that was asked for. It may get another
 * name; port 0 is another port for each name.
 */
import type { ListenerConfig } from "../config/config.ts";
import { formatBind } from "./bind-error.ts";

export function listenerKey({ name, bind }: Pick<ListenerConfig, "name" | "bind">): string {
  return bind.port === 0 ? `${formatBind(bind)} ${name}` : formatBind(bind);
}
