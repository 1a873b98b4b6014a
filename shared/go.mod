module example.com/raftsteps/shared

go 1.26
