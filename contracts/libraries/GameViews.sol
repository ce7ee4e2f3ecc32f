// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {Commitments} from "./Commitments.sol";

/// @title Points and views: what is posted, and what is picked of it
/// @notice docs/dispute.md, "Points" and "Trees". Functions change the position that they are given.
library GameViews {
    uint256 internal constant RUN_POINTS = 32;
    uint256 internal constant FOLD_POINTS = 64;

    uint256 private constant WIDEST = 6;

    /// @notice Goes to a node of the view on the table; in a trace, what it passes on the left becomes agreed.
    function pickNode(IDisputeGame.Position memory position, uint8 kind, IDisputeGame.Pick calldata pick)
        internal
        view
    {
        IDisputeGame.View memory tree = position.tree;
        (uint256 place, uint8 width) = (pick.place, tree.width);
        require(place < uint256(1) << width, IDisputeGame.WrongPlace(place, uint256(1) << width));
        checkCount(pick.siblings.length, width);
        // INVARIANT: what is disputed is what the other side posted, at the very place named.
        Commitments.checkProof(Commitments.climb(kind, pick.node, place, pick.siblings), tree.node);

        tree.height -= width;
        tree.index = (tree.index << width) | pick.place;
        (tree.width, tree.node) = (0, pick.node);
        if (kind != Commitments.TRACE) return;
        for (uint256 level = 0; level < width; ++level) {
            if ((place >> level) & 1 == 1) position.run.frontier[tree.height + level] = pick.siblings[level];
        }
        // forge-lint: disable-next-line(unsafe-typecast)
        if (tree.height == 0) position.run.reached = uint32(tree.index); // checked against `operations` where it counts
    }

    /// @notice As `pickNode`, where it has to be a leaf.
    function pickLeaf(IDisputeGame.Position memory position, uint8 kind, IDisputeGame.Pick calldata pick)
        internal
        view
        returns (uint64 index)
    {
        uint256 height = position.tree.height - position.tree.width;
        require(height == 0, IDisputeGame.WrongHeight(height));
        pickNode(position, kind, pick);
        return position.tree.index;
    }

    /// @notice Puts the mover's view of a whole tree on the table.
    /// @return merkleRoot What it hashes up to.
    function postTree(IDisputeGame.Position memory position, uint8 kind, uint64 leaves, bytes32[] calldata nodes)
        internal
        view
        returns (bytes32 merkleRoot)
    {
        // forge-lint: disable-next-line(unsafe-typecast)
        uint8 height = uint8(Commitments.depth(leaves)); // at most 64
        position.tree = IDisputeGame.View({leaves: leaves, index: 0, height: height, width: 0, node: 0});
        return postView(position.tree, kind, nodes);
    }

    /// @notice Puts the mover's view of the node picked on the table.
    /// @return node What it hashes up to.
    function postView(IDisputeGame.View memory tree, uint8 kind, bytes32[] calldata nodes)
        internal
        view
        returns (bytes32 node)
    {
        uint256 width = tree.height < WIDEST ? tree.height : WIDEST;
        checkCount(nodes.length, uint256(1) << width);
        node = Commitments.rootOfView(kind, nodes);
        // forge-lint: disable-next-line(unsafe-typecast)
        (tree.width, tree.node) = (uint8(width), node); // at most 6
    }

    /// @notice Narrows the interval on the table to what ends in the point picked.
    /// @param most Most points of an interval in this phase.
    /// @return disputed The value that the other side posted there.
    function pickPoint(IDisputeGame.Position memory position, uint256 place, uint256 most)
        internal
        pure
        returns (bytes32 disputed)
    {
        uint256 count = position.points.length;
        require(place < count, IDisputeGame.WrongPlace(place, count));
        (uint64 low, uint64 high) = (position.low, position.high);
        disputed = position.points[place];
        position.high = _pointAt(low, high, place + 1, most);
        if (place > 0) {
            position.low = _pointAt(low, high, place, most);
            position.agreed = position.points[place - 1];
        }
    }

    /// @notice Puts the mover's own points of the interval on the table.
    function postPoints(IDisputeGame.Position memory position, bytes32[] calldata points, uint256 most) internal pure {
        checkCount(points.length, _pointCount(position.low, position.high, most));
        position.points = points;
    }

    /// @notice INVARIANT: nobody disputes what it says itself, so an honest party always finds a difference to the
    /// truth in what the other side has posted.
    function checkDiffers(bytes32 own, bytes32 disputed) internal pure {
        require(own != disputed, IDisputeGame.NothingDisputed(own));
    }

    /// @notice Reverts where another number of things is given than the move takes.
    function checkCount(uint256 given, uint256 needed) internal pure {
        require(given == needed, IDisputeGame.WrongCount(given, needed));
    }

    function _pointCount(uint64 low, uint64 high, uint256 most) private pure returns (uint256) {
        uint256 length = high - low;
        return length < most ? length : most;
    }

    /// @dev Point `number`, from 1 on. It is at most `high`, so it fits.
    function _pointAt(uint64 low, uint64 high, uint256 number, uint256 most) private pure returns (uint64) {
        uint256 length = high - low;
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint64(low + length * number / _pointCount(low, high, most));
    }
}
