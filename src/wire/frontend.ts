import { Frontend } from './codes.ts';

/** A parameter in text format; null for SQL NULL. */
export type Parameter = Buffer | null;

/**
 * Writes frontend messages one after the other into one growing buffer ("Message Formats"). `take` gives what was written
 * since the last `take`, as a copy: the buffer is used again.
 */
export class FrontendWriter {
  #buffer: Buffer;
  #length = 0;

  constructor(size = 4096) {
    this.#buffer = Buffer.allocUnsafe(size);
  }

  get length(): number {
    return this.#length;
  }

  take(): Buffer {
    const bytes = Buffer.allocUnsafe(this.#length);
    this.#buffer.copy(bytes, 0, 0, this.#length);
    this.#length = 0;
    return bytes;
  }

  /** "Query": the simple protocol. */
  query(sql: string): this {
    const size = Buffer.byteLength(sql);
    this.#begin(Frontend.query, size + 1);
    this.#string(sql, size);
    return this;
  }

  /** "Parse" without parameter types: the server infers them. An empty name is the unnamed statement. */
  parse(name: string, sql: string): this {
    const nameSize = Buffer.byteLength(name);
    const size = Buffer.byteLength(sql);
    this.#begin(Frontend.parse, nameSize + 1 + size + 1 + 2);
    this.#string(name, nameSize);
    this.#string(sql, size);
    this.#int16(0);
    return this;
  }

  /** "Bind" into the unnamed portal; parameters and results in text format. */
  bind(statement: string, parameters: readonly Parameter[]): this {
    const nameSize = Buffer.byteLength(statement);
    let size = 1 + nameSize + 1 + 2 + 2 + 2;
    for (const parameter of parameters) size += 4 + (parameter === null ? 0 : parameter.length);
    this.#begin(Frontend.bind, size);
    this.#buffer[this.#length++] = 0;
    this.#string(statement, nameSize);
    this.#int16(0);
    this.#int16(parameters.length);
    for (const parameter of parameters) {
      if (parameter === null) {
        this.#int32(-1);
      } else {
        this.#int32(parameter.length);
        parameter.copy(this.#buffer, this.#length);
        this.#length += parameter.length;
      }
    }
    this.#int16(0);
    return this;
  }

  /** "Execute" of the unnamed portal, all rows. */
  execute(): this {
    this.#begin(Frontend.execute, 1 + 4);
    this.#buffer[this.#length++] = 0;
    this.#int32(0);
    return this;
  }

  /** Parse, Bind and Execute of one statement by the unnamed statement and portal. */
  run(sql: string, parameters: readonly Parameter[] = []): this {
    return this.parse('', sql).bind('', parameters).execute();
  }

  /** "Close" of a prepared statement. */
  closeStatement(name: string): this {
    const size = Buffer.byteLength(name);
    this.#begin(Frontend.close, 1 + size + 1);
    this.#buffer[this.#length++] = 0x53; // S
    this.#string(name, size);
    return this;
  }

  sync(): this {
    this.#begin(Frontend.sync, 0);
    return this;
  }

  flush(): this {
    this.#begin(Frontend.flush, 0);
    return this;
  }

  copyData(data: Uint8Array): this {
    this.#begin(Frontend.copyData, data.length);
    this.#buffer.set(data, this.#length);
    this.#length += data.length;
    return this;
  }

  copyDone(): this {
    this.#begin(Frontend.copyDone, 0);
    return this;
  }

  copyFail(reason: string): this {
    const size = Buffer.byteLength(reason);
    this.#begin(Frontend.copyFail, size + 1);
    this.#string(reason, size);
    return this;
  }

  terminate(): this {
    this.#begin(Frontend.terminate, 0);
    return this;
  }

  #begin(type: number, size: number): void {
    const needed = this.#length + 5 + size;
    if (needed > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, needed));
      this.#buffer.copy(larger, 0, 0, this.#length);
      this.#buffer = larger;
    }
    this.#buffer[this.#length++] = type;
    this.#int32(size + 4);
  }

  #string(text: string, size: number): void {
    this.#buffer.write(text, this.#length);
    this.#length += size;
    this.#buffer[this.#length++] = 0;
  }

  #int16(value: number): void {
    this.#length = this.#buffer.writeUInt16BE(value, this.#length);
  }

  #int32(value: number): void {
    this.#length = this.#buffer.writeInt32BE(value, this.#length);
  }
}
