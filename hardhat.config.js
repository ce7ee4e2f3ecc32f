// Hardhat on the npm compiler: nothing is downloaded. Settings are those of contracts/compiler.json.
"use strict";

const { subtask } = require("hardhat/config");
const { TASK_COMPILE_SOLIDITY_GET_SOLC_BUILD, TASK_COMPILE_SOLIDITY_GET_SOURCE_PATHS } = require(
  "hardhat/builtin-tasks/task-names",
);

const compiler = require("./contracts/compiler.json");

subtask(TASK_COMPILE_SOLIDITY_GET_SOLC_BUILD, async ({ solcVersion }) => {
  const longVersion = require("solc").version().replace(/\.Emscripten\.clang$/, "");
  if (!longVersion.startsWith(`${solcVersion}+`)) {
    throw new Error(`contracts/compiler.json asks for solc ${solcVersion}, node_modules has ${longVersion}; run npm ci.`);
  }
  return { compilerPath: require.resolve("solc/soljson.js"), isSolcJs: true, version: solcVersion, longVersion };
});

// Forge's tests need forge's cheatcodes, and mocks are for forge's and Python's tests.
subtask(TASK_COMPILE_SOLIDITY_GET_SOURCE_PATHS, async (_, __, runSuper) => {
  const paths = await runSuper();
  return paths.filter((file) => !/\/contracts\/(test|mocks)\//.test(file));
});

/** @type import('hardhat/config').HardhatUserConfig */
module.exports = {
  solidity: { version: compiler.version, settings: compiler.settings },
  paths: { sources: "contracts", tests: "tests/hardhat", cache: "cache/hardhat", artifacts: "artifacts" },
  networks: { hardhat: { hardfork: compiler.settings.evmVersion, accounts: { count: 4 } } },
};
