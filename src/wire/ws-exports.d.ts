/** Public exports of `ws` that its type package does not declare. */
import "ws";

declare module "ws" {
  /** Parsed `Sec-WebSocket-Extensions`: name -> one entry per offer -> parameter -> its values. */
  type ExtensionOffers = Record<string, Record<string, (string | true)[]>[]>;

  /** Throws a SyntaxError on a malformed header. */
  const extension: { parse(header: string): ExtensionOffers };

  /** Throws a SyntaxError on a malformed or repeated name. */
  const subprotocol: { parse(header: string): Set<string> };

  const Sender: {
    frame(
      data: Buffer,
      options: { fin: boolean; rsv1: boolean; opcode: number; mask: boolean; readOnly: boolean },
    ): Buffer[];
  };
}
