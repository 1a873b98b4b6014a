module example.com/raftsteps/04-smart-client

go 1.26

require example.com/raftsteps/shared v0.0.0

replace example.com/raftsteps/shared => ../shared
