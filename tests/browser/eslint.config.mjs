// How the course's JavaScript is linted: `npx --prefix tests/browser eslint -c tests/browser/eslint.config.mjs`
// from the root of the repository, or the test in tests/browser/test_lint.py. Plain modules, no build step, so
// what is not declared here or imported does not exist.
import js from "@eslint/js";

const BROWSER = [
  "cancelAnimationFrame",
  "clearInterval",
  "clearTimeout",
  "CSS",
  "CustomEvent",
  "document",
  "Event",
  "getComputedStyle",
  "IntersectionObserver",
  "matchMedia",
  "MutationObserver",
  "Node",
  "performance",
  "requestAnimationFrame",
  "ResizeObserver",
  "setInterval",
  "setTimeout",
  "structuredClone",
  "TextDecoder",
  "TextEncoder",
  "window",
];
const NODE = ["console", "process", "setTimeout", "TextDecoder", "TextEncoder", "URL"];
const names = (list) => Object.fromEntries(list.map((name) => [name, "readonly"]));

const RULES = {
  "array-callback-return": "error",
  "default-case-last": "error",
  "dot-notation": "error",
  eqeqeq: ["error", "always", { null: "ignore" }],
  "max-lines": ["error", 400],
  "no-alert": "error",
  "no-else-return": "error",
  "no-eval": "error",
  "no-implied-eval": "error",
  "no-lonely-if": "error",
  "no-loop-func": "error",
  "no-new-func": "error",
  "no-return-assign": ["error", "except-parens"],
  "no-self-compare": "error",
  "no-sequences": "error",
  "no-shadow": ["error", { hoist: "never", ignoreOnInitialization: true }],
  "no-template-curly-in-string": "error",
  "no-throw-literal": "error",
  "no-undef-init": "error",
  "no-unmodified-loop-condition": "error",
  "no-unneeded-ternary": "error",
  "no-unreachable-loop": "error",
  "no-unused-expressions": "error",
  "no-unused-vars": ["error", { args: "all", argsIgnorePattern: "^_", caughtErrors: "all" }],
  "no-use-before-define": ["error", { functions: false, variables: false }],
  "no-useless-concat": "error",
  "no-useless-return": "error",
  "no-var": "error",
  "object-shorthand": "error",
  "prefer-arrow-callback": "error",
  "prefer-const": "error",
  "prefer-object-spread": "error",
  "prefer-rest-params": "error",
  "prefer-spread": "error",
  "prefer-template": "error",
  radix: "error",
};

export default [
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  {
    files: ["**/*.js", "**/*.mjs"],
    languageOptions: { ecmaVersion: 2023, sourceType: "module" },
    rules: { ...js.configs.recommended.rules, ...RULES },
  },
  { files: ["lessonlib/**/*.js"], languageOptions: { globals: names(BROWSER) } },
  { files: ["tests/**/*.mjs"], languageOptions: { globals: names(NODE) } },
];
