import { createHash } from 'node:crypto';
import { z } from 'zod';

/** One file of a backup; `sha256` in hexadecimal. */
export interface ManifestFile {
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
}

export type Manifest = readonly ManifestFile[];

const format = z.object({
  Files: z.array(
    z.object({
      Path: z.string().optional(),
      'Encoded-Path': z.string().optional(),
      Size: z.number(),
      'Checksum-Algorithm': z.literal('SHA256'),
      Checksum: z.string(),
    }),
  ),
  'Manifest-Checksum': z.string(),
});

/** The last line of the file, and the only one that its own checksum does not cover. */
const LAST_LINE = '"Manifest-Checksum"';

/** Puts a backup manifest together ("Backup Manifest Format") and reads it. */
export function manifestReader(): { push: (data: Buffer) => void; read: () => Manifest } {
  const pieces: Buffer[] = [];
  return {
    push: (data) => void pieces.push(Buffer.from(data)),
    read: () => parseManifest(Buffer.concat(pieces)),
  };
}

/** Throws when it is not a manifest, or not as it was written. */
export function parseManifest(bytes: Buffer): Manifest {
  const at = bytes.lastIndexOf(LAST_LINE);
  if (at === -1) throw new Error('the copy came without its manifest');
  const { Files: files, 'Manifest-Checksum': checksum } = format.parse(JSON.parse(bytes.toString('utf8')));
  if (createHash('sha256').update(bytes.subarray(0, at)).digest('hex') !== checksum)
    throw new Error('the manifest of the copy is damaged');
  return files.map((file) => ({
    path: file.Path ?? Buffer.from(file['Encoded-Path'] ?? '', 'hex').toString('utf8'),
    size: file.Size,
    sha256: file.Checksum,
  }));
}
