#!/usr/bin/env node
// The npm `solc` package behind the two flags of native solc that build tools call: `--version` and `--standard-json`.
//
// Forge (`solc = "tools/solc-node.js"`), py-solc-x (`solc_binary=`) and plain pipes can use it where no native compiler
// can be downloaded. Imports that are not among the given sources are read from --base-path, the --include-path
// folders, the project's root and its node_modules, and from nowhere else.
"use strict";

const fs = require("node:fs");
const path = require("node:path");

const PROJECT = path.resolve(__dirname, "..");
const FLAGS_WITH_VALUE = new Set(["--base-path", "--include-path", "--allow-paths", "-p"]);

function parseArguments(argv) {
  const parsed = { mode: null, inputFile: null, folders: [] };
  for (let i = 0; i < argv.length; i += 1) {
    const [flag, inline] = argv[i].split(/=(.*)/s, 2);
    if (flag === "--version" || flag === "--standard-json") {
      parsed.mode = flag;
    } else if (FLAGS_WITH_VALUE.has(flag)) {
      const value = inline ?? argv[(i += 1)];
      if (value === undefined) throw new Error(`${flag} needs a value`);
      if (flag === "--base-path" || flag === "--include-path") parsed.folders.push(path.resolve(value));
    } else if (!flag.startsWith("-") && parsed.inputFile === null) {
      parsed.inputFile = argv[i];
    } else if (flag !== "-") {
      throw new Error(`unknown argument ${argv[i]}; this wrapper knows --version and --standard-json`);
    }
  }
  if (parsed.mode === null) throw new Error("name --version or --standard-json");
  return parsed;
}

/** Absolute candidates for a source name, restricted to the given folders. */
function candidates(name, folders) {
  const roots = [...folders, PROJECT, path.join(PROJECT, "node_modules")];
  const plain = name.startsWith("file://") ? name.slice("file://".length) : name;
  const paths = path.isAbsolute(plain) ? [path.normalize(plain)] : roots.map((root) => path.resolve(root, plain));
  return paths.filter((file) => roots.some((root) => file.startsWith(root + path.sep)));
}

function readSource(name, folders) {
  for (const file of candidates(name, folders)) {
    if (fs.existsSync(file)) return fs.readFileSync(file, "utf8");
  }
  return null;
}

/** npm solc takes only `content`: sources given as `urls` are read here. */
function inlineUrls(input, folders) {
  for (const [name, source] of Object.entries(input.sources ?? {})) {
    if (source.content !== undefined || !Array.isArray(source.urls)) continue;
    const content = source.urls.map((url) => readSource(url, folders)).find((text) => text !== null);
    if (content === undefined) throw new Error(`source ${name}: none of ${source.urls.join(", ")} can be read`);
    input.sources[name] = { content };
  }
  return input;
}

function nativeVersion(solc) {
  // "0.8.37+commit.f401782d.Emscripten.clang": tools parse the platform too, and refuse Emscripten.
  return solc.version().replace(/\.Emscripten\.clang$/, ".Linux.g++");
}

function main(argv) {
  const options = parseArguments(argv);
  const solc = require(require.resolve("solc", { paths: [PROJECT] }));
  if (options.mode === "--version") {
    process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${nativeVersion(solc)}\n`);
    return;
  }
  const input = inlineUrls(JSON.parse(fs.readFileSync(options.inputFile ?? 0, "utf8")), options.folders);
  const findImport = (name) => {
    const contents = readSource(name, options.folders);
    return contents === null ? { error: `File not found: ${name}` } : { contents };
  };
  process.stdout.write(solc.compile(JSON.stringify(input), { import: findImport }) + "\n");
}

// soljson installs handlers that turn any error into an abort with its whole source as a message.
try {
  main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`solc-node: ${error.message}\n`);
  process.exitCode = 1;
} finally {
  process.removeAllListeners("uncaughtException");
  process.removeAllListeners("unhandledRejection");
}
