/** What the sources and the tests declare of `ws` beside its type package, for the tools' own compilation. */
export type * as sources from "../../src/wire/ws-exports.d.ts";
export type * as tests from "../unit/wire/ws-receiver.d.ts";
