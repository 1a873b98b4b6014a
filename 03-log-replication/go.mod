module example.com/raftsteps/03-log-replication

go 1.26.0

require example.com/raftsteps/shared v0.0.0

require golang.org/x/sync v0.24.0 // indirect

replace example.com/raftsteps/shared => ../shared
