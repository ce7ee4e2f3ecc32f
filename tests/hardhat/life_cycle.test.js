// The life of a task on Hardhat's own EVM: a second implementation beside the one that forge and Anvil share.
"use strict";

const assert = require("node:assert/strict");
const { createHash } = require("node:crypto");

const { AbiCoder, BrowserProvider, ContractFactory, Interface } = require("ethers");
const { getCreateAddress, keccak256, parseEther } = require("ethers");
const hre = require("hardhat");

const LEASE = 600;
const WINDOW = 900;
const CLOCK = 1000;
const MOVE = 100;
const REWARD = parseEther("10");
const BOND = parseEther("5");
const FEE = parseEther("0.5");
const LOSS_2 = 0x40000000;
const LOSS_3 = 0x40400000;
const LOSS_4 = 0x40800000;

const sha256 = (...parts) => createHash("sha256").update(Buffer.concat(parts)).digest();
const root = (name) => `0x${createHash("sha256").update(name).digest("hex")}`;

/** A state of two tensors, its loss and an arbitrary one: root and proof (docs/formats.md, sections 1 and 2). */
function commitState(lossBits, other) {
  const chunk = Buffer.alloc(1024);
  chunk.writeUInt32LE(lossBits);
  const size = (n) => Buffer.from(n.toString(16).padStart(16, "0"), "hex");
  const lossTensor = sha256(Buffer.from([3, 1, 1]), size(4), sha256(Buffer.from([0, 1]), chunk));
  const leaves = [lossTensor, sha256(Buffer.from(other))].map((tensor) => sha256(Buffer.from([0, 2]), tensor));
  const top = sha256(Buffer.from([1, 2]), ...leaves);
  const sealed = sha256(Buffer.from([3, 2, 0]), size(2), top);
  return { stateRoot: `0x${sealed.toString("hex")}`, lossProof: [`0x${leaves[1].toString("hex")}`] };
}

async function deployAll(provider) {
  const [owner, requester, worker, other] = await Promise.all([0, 1, 2, 3].map((i) => provider.getSigner(i)));
  const make = async (name, ...values) => {
    const { abi, bytecode } = await hre.artifacts.readArtifact(name);
    const contract = await new ContractFactory(abi, bytecode, owner).deploy(...values);
    return contract.waitForDeployment();
  };
  const token = await make("TrainingToken", owner.address, parseEther("1000000"));
  const referee = await make("StepReferee");
  const nonce = await provider.getTransactionCount(owner.address);
  const ledgerAddress = getCreateAddress({ from: owner.address, nonce: nonce + 2 });
  const committeeAddress = getCreateAddress({ from: owner.address, nonce: nonce + 3 });
  const bookAddress = getCreateAddress({ from: owner.address, nonce: nonce + 4 });
  const game = await make("DisputeGame", ledgerAddress, referee.target, CLOCK, MOVE);
  const vault = await make("StakeVault", token.target, ledgerAddress, owner.address, committeeAddress, 3600);
  const addresses = [vault.target, game.target, committeeAddress, bookAddress];
  const ledger = await make("TrainingLedger", ...addresses, parseEther("1"), 60, 10);
  const committee = await make("AuditCommittee", vault.target, ledgerAddress, parseEther("5"), 60, 60);
  const book = await make("RoundBook", ledgerAddress);
  assert.equal(committee.target, committeeAddress);
  assert.equal(book.target, bookAddress);
  assert.equal(ledger.target, ledgerAddress);
  for (const person of [requester, worker, other]) {
    await (await token.transfer(person.address, parseEther("1000"))).wait();
    await (await token.connect(person).approve(vault.target, parseEther("1000"))).wait();
  }
  for (const person of [worker, other]) {
    await (await vault.connect(person).stake(person.address, parseEther("100"))).wait();
  }
  return { token, vault, ledger, game, requester, worker, other };
}

const PARAMETERS = {
  specificationHash: root("specification"),
  programRoot: root("program"),
  datasetRoot: root("data set"),
  initialStateRoot: root("initial state"),
  stateTensors: 2,
  rounds: 2,
  slotsPerRound: 1,
  stepsPerRound: 100,
  minimumSteps: 10,
  slotReward: REWARD,
  bond: BOND,
  leaseFee: FEE,
  leaseSeconds: LEASE,
  challengeWindow: WINDOW,
  admission: 0,
  minimumStake: 0,
  ticketTarget: 0,
  hasTarget: true,
  baseLoss: LOSS_4,
  targetLoss: LOSS_2,
  quorum: 0,
  roundSeconds: 0,
  mergeReward: 0,
};

describe("A task on Hardhat", () => {
  let provider;
  let world;
  let start;

  before(async () => {
    await hre.run("compile", { quiet: true });
    provider = new BrowserProvider(hre.network.provider, undefined, { cacheTimeout: -1 });
    world = await deployAll(provider);
  });

  beforeEach(async () => {
    start = await provider.send("evm_snapshot", []);
    await (await world.ledger.connect(world.requester).postTask(PARAMETERS, "https://store.example/")).wait();
  });

  afterEach(async () => {
    await provider.send("evm_revert", [start]);
  });

  async function travel(seconds) {
    await provider.send("evm_increaseTime", [seconds]);
    await provider.send("evm_mine", []);
  }

  async function claim(person, round) {
    const { ledger } = world;
    const request = {
      task: 1,
      round,
      slot: 0,
      attempt: await ledger.nextAttempt(1, round, 0),
      specificationHash: PARAMETERS.specificationHash,
      baseRoot: await ledger.baseRoot(1, round),
      worker: person.address,
      ticketBlock: 0,
      ticketNonce: 0,
    };
    await (await ledger.connect(person).claim(request)).wait();
    return request.attempt;
  }

  async function submission(round, attempt, steps, lossBits) {
    const state = commitState(lossBits, `round ${round}, attempt ${attempt}`);
    const baseRoot = await world.ledger.baseRoot(1, round);
    return { task: 1, round, slot: 0, attempt, baseRoot, steps, heldOutLoss: lossBits, ...state };
  }

  async function playRound(person, round, steps, lossBits) {
    const attempt = await claim(person, round);
    const result = await submission(round, attempt, steps, lossBits);
    await (await world.ledger.connect(person).submit(result)).wait();
    await travel(WINDOW + 1);
    await (await world.ledger.finalise(1, round, 0, attempt, result.stateRoot)).wait();
    return result.stateRoot;
  }

  /** Name and arguments of the custom error that a call reverts with. */
  async function refusal(call) {
    try {
      await call();
    } catch (error) {
      const data = error.data ?? error.info?.error?.data?.data ?? error.info?.error?.data;
      const parsed = new Interface(world.ledger.interface.fragments).parseError(data);
      return [parsed.name, ...parsed.args];
    }
    return ["no refusal"];
  }

  it("is posted, trained in two rounds by two workers, and paid to the wei", async () => {
    const { ledger, vault, token, requester, worker, other } = world;
    const first = await playRound(worker, 0, 100, LOSS_3); // on the line of round 0: paid in full
    assert.equal(await ledger.baseRoot(1, 1), first);
    const second = await playRound(other, 1, 50, LOSS_3); // half of the steps, half of the way
    assert.equal(await vault.creditOf(worker.address), REWARD);
    assert.equal(await vault.creditOf(other.address), REWARD / 4n);
    assert.equal(await vault.creditOf(requester.address), (REWARD * 3n) / 4n);
    assert.equal(await vault.escrowOf(1), 0n);
    const checkpoint = await ledger.getCheckpoint(1, 1);
    assert.deepEqual([checkpoint.parent, checkpoint.stateRoot], [first, second]);

    const before = await token.balanceOf(worker.address);
    await (await vault.connect(worker).withdraw()).wait();
    assert.equal(await token.balanceOf(worker.address), before + REWARD);
    const booked = (await vault.totalStaked()) + (await vault.totalOwed());
    assert.equal(await token.balanceOf(vault.target), booked);
  });

  it("passes a lapsed lease on and burns its fee", async () => {
    const { ledger, vault, token, worker, other } = world;
    const supply = await token.totalSupply();
    const attempt = await claim(worker, 0);
    await travel(LEASE + 1);
    assert.equal(await claim(other, 0), attempt + 1n);
    assert.equal(await token.totalSupply(), supply - FEE);
    assert.deepEqual([...(await vault.stakeOf(worker.address))], [parseEther("100") - FEE, 0n]);
    const late = await submission(0, attempt, 100, LOSS_3);
    const refused = await refusal(() => ledger.connect(worker).submit.staticCall(late));
    assert.deepEqual(refused, ["WrongAttempt", attempt, attempt + 1n]);
  });

  it("refuses a better loss than the state holds, and an early finalisation", async () => {
    const { ledger, worker } = world;
    const attempt = await claim(worker, 0);
    const honest = await submission(0, attempt, 100, LOSS_3);
    const lie = { ...honest, heldOutLoss: LOSS_2 };
    const refused = await refusal(() => ledger.connect(worker).submit.staticCall(lie));
    assert.deepEqual(refused.slice(0, 2), ["WrongLossProof", honest.stateRoot]);
    await (await ledger.connect(worker).submit(honest)).wait();
    const early = await refusal(() => ledger.finalise.staticCall(1, 0, 0, attempt, honest.stateRoot));
    assert.equal(early[0], "WindowStillOpen");
    const again = await refusal(() => ledger.connect(worker).submit.staticCall(honest));
    assert.deepEqual(again, ["AlreadySubmitted", honest.stateRoot]);
  });

  it("is challenged: positions are hashed as their ABI encoding, and a defence in time is the last word", async () => {
    const { ledger, vault, game, worker, other } = world;
    assert.equal(await game.available(), true);
    const attempt = await claim(worker, 0);
    const result = await submission(0, attempt, 100, LOSS_3);
    await (await ledger.connect(worker).submit(result)).wait();
    const opening = { challenger: other.address, task: 1, round: 0, slot: 0, attempt, submitted: result.stateRoot };
    const points = [...Array(32).keys()].map((point) => root(`point ${point}`));
    const receipt = await (await game.connect(other).open(opening, points)).wait();
    const position = await check(receipt, "GameStarted", 1);
    assert.equal(await game.earliest(1, 0, 0, attempt, points[31]), other.address);

    // The defender disputes the first point: runs 0 to 3 of 101, of which it posts its own.
    const own = [...Array(3).keys()].map((point) => root(`own ${point}`));
    const moved = await (await game.connect(worker).narrow(position, 0, own)).wait();
    const next = await check(moved, "Moved", 1);
    assert.deepEqual([next[7], next[8], next[10]], [0n, 3n, own]); // low, high, points
    await assert.rejects(game.connect(other).narrow.staticCall(position, 0, own)); // a position of the past
    await travel(2 * LEASE + 1);
    await (await game.settleLate(next)).wait();
    assert.equal((await game.getGame(1)).outcome, 1n);
    assert.equal(await vault.creditOf(worker.address), BOND / 2n);
    assert.equal((await vault.stakeOf(other.address)).staked, parseEther("100") - BOND);
  });

  /** The position that an event carries, once its hash is known to be the one that the game keeps. */
  async function check(receipt, event, number) {
    const { game } = world;
    const logs = receipt.logs.filter((log) => log.address === game.target).map((log) => game.interface.parseLog(log));
    const position = logs.find((log) => log.name === event).args.position;
    const [input] = game.interface.getFunction("settleLate").inputs;
    const encoded = AbiCoder.defaultAbiCoder().encode([input], [position]);
    assert.equal((await game.getGame(number)).position, keccak256(encoded));
    return position.toArray(true);
  }
});
