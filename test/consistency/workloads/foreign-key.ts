import { always, type Finding, type WorkloadKind } from './workload.ts';

const PARENTS = 4;
const ACTIONS: Record<string, string> = {
  no_action: '',
  restrict: 'ON DELETE RESTRICT',
  cascade: 'ON DELETE CASCADE ON UPDATE CASCADE',
  set_null: 'ON DELETE SET NULL ON UPDATE SET NULL',
  deferred: 'DEFERRABLE INITIALLY DEFERRED',
};

interface Family {
  readonly parent: string;
  readonly child: string;
  readonly schema: readonly string[];
}

/** Of two columns throughout, so that all are composite. */
function family(name: string, action: string, partitioned = false): Family {
  const parent = `fk_${name}_parent`;
  const child = `fk_${name}_child`;
  const by = partitioned ? 'PARTITION BY HASH (a)' : '';
  const parts = (table: string) =>
    partitioned
      ? [0, 1].map(
          (i) => `CREATE TABLE ${table}_${i} PARTITION OF ${table} FOR VALUES WITH (MODULUS 2, REMAINDER ${i})`,
        )
      : [];
  return {
    parent,
    child,
    schema: [
      `CREATE TABLE ${parent} (a int, b int, PRIMARY KEY (a, b)) ${by}`,
      ...parts(parent),
      `CREATE TABLE ${child} (id int, a int, b int, FOREIGN KEY (a, b) REFERENCES ${parent} ${action}) ${by}`,
      ...parts(child),
      ...(partitioned ? [] : [`ALTER TABLE ${child} ADD PRIMARY KEY (id)`]),
    ],
  };
}

const FAMILIES = [
  ...Object.entries(ACTIONS).map(([name, action]) => family(name, action)),
  { ...family('partitioned', '', true) },
];
const SELF = `CREATE TABLE fk_self (id int PRIMARY KEY, parent int REFERENCES fk_self)`;

/** Parents are deleted, change their keys and come back while others insert children: never an orphan. */
export const foreignKeys: WorkloadKind = {
  name: 'foreign-key race',
  schema: [
    ...FAMILIES.flatMap(({ schema }) => schema),
    ...FAMILIES.filter(({ parent }) => parent.includes('partitioned')).flatMap(({ child }) => [
      `ALTER TABLE ${child} REPLICA IDENTITY FULL`,
      `ALTER TABLE ${child}_0 REPLICA IDENTITY FULL`,
      `ALTER TABLE ${child}_1 REPLICA IDENTITY FULL`,
    ]),
    SELF,
  ],
  forbids: always,
  create: () => {
    let ids = 100;
    return {
      step: async (session, rng) => {
        const { parent, child } = rng.pick([...FAMILIES, { parent: 'fk_self', child: 'fk_self' }]);
        const key = 1 + rng.below(PARENTS);
        const id = ++ids;
        const self = parent === 'fk_self';
        const where = self ? `id = ${key}` : `a = ${key} AND b = ${key}`;
        const statements = [
          self ? `INSERT INTO fk_self VALUES (${id}, ${key})` : `INSERT INTO ${child} VALUES (${id}, ${key}, ${key})`,
          `DELETE FROM ${parent} WHERE ${where}`,
          self
            ? `UPDATE fk_self SET id = ${id} WHERE id = ${key}`
            : `UPDATE ${parent} SET a = a % ${PARENTS} + 1, b = b % ${PARENTS} + 1 WHERE ${where}`,
          self ? `DELETE FROM fk_self WHERE parent = ${key}` : `DELETE FROM ${child} WHERE ${where}`,
          `INSERT INTO ${parent} VALUES (${key}, ${self ? 'NULL' : key}) ON CONFLICT DO NOTHING`,
        ];
        const sql = rng.pick([...statements, statements[0], statements[4]]);
        await session.transact((client) => client.query(sql));
      },
      finish: async (nodes) => {
        const findings: Finding[] = [];
        for (const [i, node] of nodes.entries())
          for (const { parent, child } of [...FAMILIES, { parent: 'fk_self', child: 'fk_self' }]) {
            const match = parent === 'fk_self' ? 'p.id = c.parent' : 'p.a = c.a AND p.b = c.b';
            const { rows } = await node.query(
              `SELECT * FROM ${child} c WHERE ${parent === 'fk_self' ? 'parent' : 'a'} IS NOT NULL
               AND NOT EXISTS (SELECT FROM ${parent} p WHERE ${match})`,
            );
            for (const row of rows)
              findings.push({ kind: 'orphan', detail: `${child} on node ${i + 1}: ${JSON.stringify(row)}` });
          }
        return { reads: nodes.length * (FAMILIES.length + 1), findings };
      },
    };
  },
};
