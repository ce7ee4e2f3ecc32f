// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

import {ITrainingToken} from "./base/ITrainingToken.sol";
import {Fixture} from "./base/Fixture.sol";
import {Permit} from "./base/Permit.sol";

contract TrainingTokenTest is Fixture {
    function test_constructor_mintsAllToRecipient() public {
        ITrainingToken fresh =
            ITrainingToken(this.construct("TrainingToken.sol:TrainingToken", abi.encode(STRANGER, 7 ether)));
        vm.assertEq(fresh.balanceOf(STRANGER), 7 ether, "balance");
        vm.assertEq(fresh.totalSupply(), 7 ether, "supply");
        vm.assertEq(fresh.name(), "Training Token", "name");
        vm.assertEq(fresh.symbol(), "TRAIN", "symbol");
        vm.assertEq(fresh.decimals(), 18, "decimals");
    }

    function test_constructor_zeroSupplyReverts() public {
        vm.expectRevert(abi.encodeWithSelector(ITrainingToken.SupplyOutOfRange.selector, 0));
        this.construct("TrainingToken.sol:TrainingToken", abi.encode(STRANGER, 0));
    }

    function test_constructor_supplyOver128BitsReverts() public {
        vm.expectRevert(abi.encodeWithSelector(ITrainingToken.SupplyOutOfRange.selector, 1 << 128));
        this.construct("TrainingToken.sol:TrainingToken", abi.encode(STRANGER, 1 << 128));
    }

    function test_constructor_zeroRecipientReverts() public {
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InvalidReceiver.selector, address(0)));
        this.construct("TrainingToken.sol:TrainingToken", abi.encode(address(0), 1));
    }

    function testFuzz_burn_lowersSupply(uint256 amount) public {
        amount = between(amount, 0, FUNDS / 2);
        uint256 before = token.balanceOf(WORKER);
        vm.prank(WORKER);
        token.burn(amount);
        vm.assertEq(token.totalSupply(), SUPPLY - amount, "supply");
        vm.assertEq(token.balanceOf(WORKER), before - amount, "balance");
    }

    function test_permit_setsAllowanceOnce() public {
        uint256 key = 0xBEEF;
        address owner = vm.addr(key);
        bytes32 digest = Permit.digest(token, owner, STRANGER, 5, block.timestamp);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        token.permit(owner, STRANGER, 5, block.timestamp, v, r, s);
        vm.assertEq(token.allowance(owner, STRANGER), 5, "allowance");

        // The nonce moved on, so the same signature now recovers to somebody else.
        vm.expectRevert();
        token.permit(owner, STRANGER, 5, block.timestamp, v, r, s);
        vm.expectRevert(abi.encodeWithSelector(ERC20Permit.ERC2612ExpiredSignature.selector, block.timestamp - 1));
        token.permit(owner, STRANGER, 5, block.timestamp - 1, v, r, s);
    }
}
