/**
 * The direction in which data and knowledge flow (docs: CONTRIBUTING.md). `npm run lint:dependencies` runs these and
 * fails as well when no module was read, which a version mismatch with the compiler would otherwise turn into success.
 *
 * @type {import('dependency-cruiser').IConfiguration}
 */
module.exports = {
  forbidden: [
    {
      name: 'no-cycles',
      comment: 'Two modules that need each other are one module, or hide a third. Types alone may point both ways.',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'core-is-pure',
      comment: 'A core imports types, other cores, and the pure helpers that runtime and gid.ts are. No I/O.',
      severity: 'error',
      from: { path: '^src/[^/]+/core/' },
      to: {
        pathNot: ['^src/[^/]+/core/', '^src/runtime/(ids|assert|errors|hybrid-clock)\\.ts$', '^src/commit/gid\\.ts$'],
        dependencyTypesNot: ['type-only'],
      },
    },
    {
      name: 'core-has-no-packages',
      comment: 'Not even for types: a type of net or pg in a core would make I/O part of its interface.',
      severity: 'error',
      from: { path: '^src/[^/]+/core/' },
      to: { dependencyTypes: ['core', 'npm', 'npm-dev', 'npm-optional', 'npm-peer', 'npm-unknown'] },
    },
    {
      name: 'leaves',
      comment: 'wire, sql and runtime know nothing of the rest; runtime is what they may share.',
      severity: 'error',
      from: { path: '^src/(wire|sql|runtime)/' },
      to: { path: '^src/', pathNot: ['^src/$1/', '^src/runtime/'] },
    },
    {
      name: 'admin-reads-interfaces',
      comment: 'Metrics and pages see types of the parts they show; the composition root hands them the values.',
      severity: 'error',
      from: { path: '^src/admin/' },
      to: { path: '^src/', pathNot: ['^src/admin/', '^src/runtime/'], dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'only-the-root-knows-everything',
      comment: 'cli and main.ts compose the parts; no part knows them.',
      severity: 'error',
      from: { path: '^src/', pathNot: ['^src/main\\.ts$', '^src/cli/'] },
      to: { path: ['^src/main\\.ts$', '^src/cli/'] },
    },
    {
      name: 'no-test-code-in-src',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: ['^test/', '^bench/'] },
    },
    {
      name: 'no-undeclared-packages',
      comment: 'What is imported at run time must be installed with the program.',
      severity: 'error',
      from: { path: '^src/' },
      to: { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'unknown'], dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'resolvable',
      severity: 'error',
      from: { path: '^src/' },
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'require', 'node', 'default', 'types'],
    },
  },
};
