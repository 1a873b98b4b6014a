module example.com/raftsteps/06-compaction

go 1.26.0

require (
	example.com/raftsteps/shared v0.0.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/anishathalye/porcupine v1.3.1 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sync v0.24.0 // indirect
)

replace example.com/raftsteps/shared => ../shared
