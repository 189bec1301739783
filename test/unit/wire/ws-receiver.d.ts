/** The parser of `ws`, which its type package does not declare: the judge of what the relay sends. */
import "ws";
import type { Writable } from "node:stream";

declare module "ws" {
  interface PerMessageDeflateOptions {
    isServer: boolean;
    maxPayload: number;
    threshold: number;
  }

  class PerMessageDeflate {
    constructor(options: PerMessageDeflateOptions);
    accept(offers: Record<string, (string | true)[]>[]): Record<string, unknown>;
    compress(
      data: Buffer,
      fin: boolean,
      callback: (error: Error | null, result: Buffer) => void,
    ): void;
    cleanup(): void;
  }

  class Receiver extends Writable {
    constructor(options: {
      isServer: boolean;
      extensions: Record<string, PerMessageDeflate>;
      maxPayload: number;
      maxFragments: number;
      maxBufferedChunks: number;
      skipUTF8Validation: boolean;
    });
  }
}
