// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Performance} from "../libraries/Performance.sol";
import {Fixture} from "./base/Fixture.sol";

contract PerformanceTest is Fixture {
    string private constant VECTORS = "tests/vectors/performance.json";
    string private constant FIXED_TYPE = "Fixed(string name,uint256 bits,bool finite,int256 fixed)";
    string private constant PAY_TYPE =
        "Pay(string name,uint256 slot_reward,uint256 rounds,uint256 round,uint256 steps_per_round,uint256 steps,bool has_target,uint256 base_loss,uint256 target_loss,uint256 loss,uint256 pay)";

    struct FixedVector {
        string name;
        uint256 bits;
        bool finite;
        int256 value;
    }

    struct PayVector {
        string name;
        uint256 reward;
        uint256 rounds;
        uint256 round;
        uint256 stepsPerRound;
        uint256 steps;
        bool hasTarget;
        uint256 base;
        uint256 target;
        uint256 loss;
        uint256 pay;
    }

    function setUp() public override {}

    function test_fixedPoint_sharedVectors() public view {
        bytes memory encoded = vm.parseJsonTypeArray(vm.readFile(VECTORS), ".fixed", FIXED_TYPE);
        FixedVector[] memory vectors = abi.decode(encoded, (FixedVector[]));
        vm.assertGe(vectors.length, 100, "too few vectors");
        for (uint256 i = 0; i < vectors.length; ++i) {
            (bool finite, int256 value) = Performance.fixedPoint(uint32(vectors[i].bits));
            vm.assertEq(finite, vectors[i].finite, vectors[i].name);
            vm.assertEq(value, vectors[i].value, vectors[i].name);
        }
    }

    function test_pay_sharedVectors() public view {
        bytes memory encoded = vm.parseJsonTypeArray(vm.readFile(VECTORS), ".pay", PAY_TYPE);
        PayVector[] memory vectors = abi.decode(encoded, (PayVector[]));
        vm.assertGe(vectors.length, 200, "too few vectors");
        for (uint256 i = 0; i < vectors.length; ++i) {
            PayVector memory v = vectors[i];
            Performance.Terms memory terms = Performance.Terms(
                v.reward, v.stepsPerRound, v.rounds, v.round, v.hasTarget, uint32(v.base), uint32(v.target)
            );
            vm.assertEq(Performance.pay(terms, v.steps, uint32(v.loss)), v.pay, v.name);
        }
    }

    /// @dev Never more than the reward's share for the steps, never a revert, whatever a task may be posted with.
    function testFuzz_pay_boundedByShareOfSteps(
        uint96 reward,
        uint32 full,
        uint32 steps,
        uint32 rounds,
        uint32 round,
        uint32 base,
        uint32 target,
        uint32 loss
    ) public pure {
        full = uint32(between(full, 1, type(uint32).max));
        steps = uint32(between(steps, 0, full));
        rounds = uint32(between(rounds, 1, type(uint32).max));
        round = uint32(between(round, 0, rounds - 1));
        (bool baseFinite, int256 baseValue) = Performance.fixedPoint(base);
        (bool targetFinite, int256 targetValue) = Performance.fixedPoint(target);
        bool hasTarget = baseFinite && targetFinite && baseValue > targetValue;
        Performance.Terms memory terms = Performance.Terms(reward, full, rounds, round, hasTarget, base, target);
        uint256 pay = Performance.pay(terms, steps, loss);
        vm.assertLe(pay, uint256(reward) * steps / full, "more than the share of the steps");
    }

    function testFuzz_pay_neverLessForABetterLoss(uint96 reward, uint32 first, uint32 second, uint32 round)
        public
        pure
    {
        first = uint32(between(first, 0, 0x7f7fffff));
        second = uint32(between(second, first, 0x7f7fffff)); // larger bits of positive floats: larger loss
        round = uint32(between(round, 0, 9));
        Performance.Terms memory terms = Performance.Terms(reward, 100, 10, round, true, LOSS_4, LOSS_2);
        vm.assertGe(Performance.pay(terms, 70, first), Performance.pay(terms, 70, second), "better loss, less pay");
    }

    function test_pay_fullOnTheLineInEveryRound() public pure {
        // From 4 to 2 in 4 rounds: the line passes 3.5, 3, 2.5, 2.
        uint32[4] memory line = [0x40600000, LOSS_3, 0x40200000, LOSS_2];
        for (uint256 round = 0; round < 4; ++round) {
            Performance.Terms memory terms = Performance.Terms(1 ether, 10, 4, round, true, LOSS_4, LOSS_2);
            vm.assertEq(Performance.pay(terms, 10, line[round]), 1 ether, "on the line");
            vm.assertEq(Performance.pay(terms, 5, line[round]), 0.5 ether, "half of the steps");
            vm.assertEq(Performance.pay(terms, 10, LOSS_4), 0, "no improvement");
            vm.assertEq(Performance.pay(terms, 10, NAN), 0, "NaN is no improvement");
            vm.assertEq(Performance.pay(terms, 10, 0xff800000), 0, "minus infinity is no improvement");
        }
    }

    function test_pay_roundsDown() public pure {
        Performance.Terms memory terms = Performance.Terms(10, 3, 1, 0, false, 0, 0);
        vm.assertEq(Performance.pay(terms, 1, 0), 3, "a third of 10");
        vm.assertEq(Performance.pay(terms, 2, NAN), 6, "without a target the loss does not matter");
    }
}
