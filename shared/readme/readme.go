// Package readme runs the commands of a README as a reader would, and compares
// what they print with what the README says they print.
//
// A stage has one test for it, in the folder of its README:
//
//	func TestREADME(t *testing.T) { readme.Test(t, "README.md") }
//
// # What an author writes
//
// Blocks fenced as console are run; every other fence (sh, text, go, json) is
// only read by people:
//
//	```console
//	$ go run ./01-client put x 1
//	$ go run ./01-client get x
//	1
//	```
//
// A line that begins with "$ " is a command. The lines below it, up to the next
// command, are all it prints, to stdout and stderr, in the order in which it
// prints them. A command goes on over several lines as it does in a shell:
// after a line that ends in a backslash or a pipe, and inside a here-document,
// the lines that begin with "> " belong to the command.
//
// What differs from run to run is written as an ellipsis, the one character
// "…". Within a line it stands for any text; a line that is nothing else
// stands for any number of lines, none included.
//
// A failure must be seen. A command that ends with another exit code than 0
// fails the test, unless the README shows it: either the next command asks for
// it ($ echo $?), or the output shows go run's own last line, "exit status 3".
// (go run prints that line and itself always ends with 1. To show the real
// code, build the program first: $ go build -o kv ./01-client.)
//
// # Terminals
//
// All blocks share one shell, so variables, $?, & and $! behave as they do for
// a reader. A block whose first line is a comment that names a terminal has
// a shell of its own, one for each name:
//
//	```console
//	# first terminal
//	$ go run ./02-naive-replication cluster
//	…
//	n1 leads …
//	```
//
// The last command of such a block may go on running: once it has printed what
// the block shows, the next block has its turn. A later block of the same
// terminal goes on where that one stopped: lines above its first command are
// what the running command prints next. Whatever still runs at the end of the
// README gets a ^C.
//
// The shell is not interactive, so it prints no notices about jobs: lines such
// as "[1] 4711" and "[1]+  Done …" may stand in the README and are not compared.
//
// # Keys and conversations
//
// The line ^C is that key: it interrupts the running command. The line ^D ends
// its input.
//
// In a conversation with nc, answers of a server begin with {"ok": or {"id":
// and ellipses, and every other line is typed by the reader:
//
//	```console
//	$ nc 127.0.0.1 7000
//	{"op":"put","key":"x","value":"1"}
//	{"ok":true}
//	hello
//	{"ok":false,"error":{"code":"bad_request",…
//	^C
//	```
//
// A line is typed once the answers above it have come. In a conversation with
// any other program, a line is typed if it begins with a prompt, which is a name
// (or nothing) and "> ", as in "> get x"; the prompt itself is not typed, and is
// not expected from the program, whose input is not a terminal here.
//
// # What the test does behind the scenes
//
// The current folder is a temporary one that looks like the root of the
// repository (its entries are links), so that .raftsteps does not land in the
// tree. First in PATH are stand-ins for two programs:
//
//   - go: "go run ./NN-stage …" runs a program that was built once, and behaves
//     as go run does; "go build -o FILE ./NN-stage" gives it to the reader;
//     every other go command is carried out in the repository itself.
//   - nc: connects, sends what is typed and prints what is answered, since not
//     every machine has one.
//
// The documented ports (stage NN has 70N0 to 70N9) are moved to free ones, by
// KV_BASE_PORT and in the text of commands, and back in what is printed. So tests
// run side by side, and beside a real cluster. Variables that begin with KV_ or
// RAFT_ are not inherited.
//
// Nothing waits by sleeping: the test waits for the output that the README shows,
// up to a generous deadline (-readme.wait).
//
// # Rewriting
//
//	go test ./02-naive-replication -run README -update
//
// runs everything and writes what was printed into the README. Lines that still
// match stay as they are, ellipses included; new lines are written as printed,
// so look for times and ports in them and put ellipses there. Commit a rewrite
// only if you understand what caused it.
package readme
