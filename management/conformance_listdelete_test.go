package management

func listDeleteRows() []row { return nil }
