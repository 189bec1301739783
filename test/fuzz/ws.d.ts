/** What the sources and the tests declare of `ws` beside its type package, for the tools' own compilation. */
import "../../src/wire/ws-exports.d.ts";
import "../unit/wire/ws-receiver.d.ts";
