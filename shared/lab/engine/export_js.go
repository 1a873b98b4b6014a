package engine

import (
	"syscall/js"

	"example.com/raftsteps/shared/lab/scenario"
)

// Export gives the function answer to the page, and never returns: question in,
// answer out, as text. It is the whole main of an engine for browsers.
func Export(stage scenario.Stage) {
	js.Global().Set("answer", js.FuncOf(func(_ js.Value, args []js.Value) any {
		if len(args) != 1 || args[0].Type() != js.TypeString {
			return `{"error":"answer takes one text"}`
		}
		out, err := Answer(stage, []byte(args[0].String()))
		if err != nil {
			out = Failure(err)
		}
		return string(out)
	}))
	select {}
}
