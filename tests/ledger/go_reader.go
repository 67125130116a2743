// Reads our published log with Go's own transparency-log packages, as a stranger would.
//
// Usage: go_reader FOLDER VERIFIER-KEY SEED. Prints what it checked; a failed check is an exit status of 1.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type folder string

func (f folder) Height() int { return 8 }

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		// Go's own paths name the height, tile/8/<level>/...; C2SP fixes it at 8 and leaves it out.
		data, err := os.ReadFile(filepath.Join(string(f), "tile", strings.TrimPrefix(tile.Path(), "tile/8/")))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}

func (f folder) entry(index, size int64) []byte {
	width := size - index/256*256
	if width > 256 {
		width = 256
	}
	tile := tlog.Tile{H: 8, L: 0, N: index / 256, W: int(width)}
	path := strings.Replace(tile.Path(), "tile/8/0/", "tile/entries/", 1)
	data, err := os.ReadFile(filepath.Join(string(f), path))
	check(err)
	for skip := index % 256; ; skip-- {
		length := int(binary.BigEndian.Uint16(data))
		if skip == 0 {
			return data[2 : 2+length]
		}
		data = data[2+length:]
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	published := folder(os.Args[1])
	verifier, err := note.NewVerifier(os.Args[2])
	check(err)
	seed, err := strconv.ParseInt(os.Args[3], 10, 64)
	check(err)
	signed, err := os.ReadFile(filepath.Join(string(published), "checkpoint"))
	check(err)
	opened, err := note.Open(signed, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root, err := base64.StdEncoding.DecodeString(lines[2])
	check(err)
	var head tlog.Tree
	head.N = size
	copy(head.Hash[:], root)

	reader := tlog.TileHashReader(head, published) // checks every tile that it reads against the head
	hash, err := tlog.TreeHash(size, reader)
	check(err)
	if hash != head.Hash {
		check(fmt.Errorf("tree hash %v is not the checkpoint's %v", hash, head.Hash))
	}
	chance := rand.New(rand.NewSource(seed))
	for round := 0; round < 200; round++ {
		index := chance.Int63n(size)
		proof, err := tlog.ProveRecord(size, index, reader)
		check(err)
		check(tlog.CheckRecord(proof, size, head.Hash, index, tlog.RecordHash(published.entry(index, size))))
		older := 1 + chance.Int63n(size)
		olderHash, err := tlog.TreeHash(older, reader)
		check(err)
		tree, err := tlog.ProveTree(size, older, reader)
		check(err)
		check(tlog.CheckTree(tree, size, head.Hash, older, olderHash))
	}
	fmt.Printf("%s %d %x\n", lines[0], size, hash[:])
}
